// Fills the storage of one document before its own scripts run. Must never fill a storage twice, and never hand
// the data of one origin to another: it goes to documents of its own origin only.
//
// origin: whose storage it is.
// payload: JSON text {l: [[key, value]], s: [[key, value]]}.
// into: 'empty' storages only, for whatever else is in one is newer than the payload; 'gaps', so that keys that are there
// stay; or 'all', so that they are replaced.
(origin, payload, into) => {
  try {
    if (location.origin !== origin || !mayFill()) return;
    const data = JSON.parse(payload);
    fill(() => localStorage, data.l);
    fill(() => sessionStorage, data.s);
  } catch {
    // Storage is denied to this document, or full: it starts as it would have without us.
  }

  function mayFill() {
    return window === window.top ? !cameFromItself() : isFirstOfItsSite();
  }

  // A document that replaces one of its own origin is not the first one: the page may have logged out in between.
  // The referrer says nothing here: sites turn it off, and agents set it. Nor does the history: an error page in it, of a
  // site that did not answer, was never filled (Chromium 156, 2026-11-23).
  function cameFromItself() {
    const [entry] = performance.getEntriesByType('navigation');
    return Boolean(entry && entry.unloadEventStart > 0);
  }

  // A frame shares its storage with top-level documents of its origin only when the top-level site is its own.
  function isFirstOfItsSite() {
    const ancestors = location.ancestorOrigins;
    if (!ancestors || !ancestors.length || ancestors.contains(location.origin)) return false;
    const top = new URL(ancestors[ancestors.length - 1]);
    return top.protocol === location.protocol && site(top.hostname) === site(location.hostname);
  }

  function site(hostname) {
    if (/^[\d.]+$|:/.test(hostname)) return hostname;
    const labels = hostname.split('.');
    const [second, first] = labels.slice(-2);
    const seconds = ['ac', 'co', 'com', 'edu', 'go', 'gob', 'gov', 'mil', 'ne', 'net', 'or', 'org'];
    const isDoubleSuffix = labels.length > 2 && first.length === 2 && seconds.includes(second);
    return labels.slice(isDoubleSuffix ? -3 : -2).join('.');
  }

  function fill(open, items) {
    if (!items || !items.length) return;
    const storage = open();
    if (into === 'empty' && storage.length) return;
    for (const [key, value] of items) {
      if (into !== 'gaps' || storage.getItem(key) === null) storage.setItem(key, value);
    }
  }
}
