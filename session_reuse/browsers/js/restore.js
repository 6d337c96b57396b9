// Fills the storage of one document before its own scripts run. Must never fill a storage twice, and never hand
// the data of one origin to another: it goes to documents of its own origin only.
//
// origin: whose storage it is.
// payload: JSON text {l: [[key, value]], s: [[key, value]], d: [database]}.
// into: 'empty' storages only, for whatever else is in one is newer than the payload; 'gaps', so that keys that are there
// stay; or 'all', so that they are replaced.
// load: the function of indexeddb_load.js, or null.
(origin, payload, into, load) => {
  try {
    if (location.origin !== origin || !mayFill()) return;
    const data = JSON.parse(payload);
    fill(() => localStorage, data.l);
    fill(() => sessionStorage, data.s);
    if (data.d && load) load(data.d).catch(() => {});
  } catch {
    // Storage is denied to this document, or full: it starts as it would have without us.
  }

  function mayFill() {
    return window === window.top ? !cameFromItself() : isFirstOfItsSite();
  }

  // A document that replaces one of its own origin is not the first one: the page may have logged out in between.
  // The referrer says nothing here: sites turn it off, and agents set it. After an error page there is no unload time,
  // yet the entry it stood for (seen in Chromium 156, 2026-11-22).
  function cameFromItself() {
    const [entry] = performance.getEntriesByType('navigation');
    if (entry && (entry.type === 'back_forward' || entry.unloadEventStart > 0)) return true;
    const activation = window.navigation && navigation.activation;
    return Boolean(activation && activation.from && activation.navigationType === 'push');
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
    const isShortSuffix = labels.length > 2 && first.length === 2 && second.length <= 3;
    return labels.slice(isShortSuffix ? -3 : -2).join('.');
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
