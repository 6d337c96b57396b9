// Reads what sites can see of the browser's setting. Must never change it.
() => ({
  user_agent: navigator.userAgent,
  locale: navigator.language,
  timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
})
