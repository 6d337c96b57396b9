// Fills the storage of one document before its own scripts run.
//
// name: of the property that holds what is stored of the document's origin: {load, payloads, entry}. Each payload is {l: [[key, value]],
// s: [[key, value]], d: JSON text of databases, site: scheme and registrable domain}; `load` fills databases;
// `entry` is the document's navigation entry.
// overwrites: whether keys that are there are replaced.
// done: {origin: [parts that are not filled: `localStorage`, `sessionStorage`, `database NAME`]}.
// A document whose localStorage was filled writes a receipt into its sessionStorage, and removes it before the page can see it. It writes
// another one for each database, as soon as that is filled.
(name, overwrites, done) => {
  const stored = self[name];
  delete self[name];
  if (!stored || window.credentialless) return; // a credentialless frame has a storage of its own
  const { payloads, load, entry } = stored;
  let receipt = '';
  let setItem, removeItem;
  try {
    // The page may have replaced these when its databases are filled.
    setItem = sessionStorage.setItem.bind(sessionStorage);
    removeItem = sessionStorage.removeItem.bind(sessionStorage);
    if (window !== window.top && !isFirstOfItsSite(payloads[0].site)) return;
    const skipped = done[location.origin] || [];
    const isFirst = window !== window.top || !cameFromItself();
    const hasLeftUnfinished = sessionStorage.getItem(name) !== null;
    if (hasLeftUnfinished) removeItem(name);
    for (const { d } of payloads) {
      if (d && (isFirst || hasLeftUnfinished)) fillDatabases(JSON.parse(d).filter((each) => !skipped.includes(`database ${each.name}`)));
    }
    if (isFirst) {
      receipt = 'failed';
      if (!skipped.includes('localStorage')) payloads.forEach(({ l }) => fill(() => localStorage, l));
      writeReceipt((receipt = 'filled')); // before sessionStorage, which may be full then, and whose own events tell what it has got
      if (!skipped.includes('sessionStorage')) payloads.forEach(({ s }) => fill(() => sessionStorage, s));
    }
  } catch {
    // Storage is denied to this document, or full: it starts as it would have without us.
  }
  if (receipt === 'failed') writeReceipt(receipt);

  // Events of localStorage come over the browser, and are lost when another process takes over the tab. Those of
  // sessionStorage come from the document itself, ahead of all that its own scripts begin (Chromium 156, 2026-11-26).
  function writeReceipt(content) {
    try {
      setItem(name, content);
      removeItem(name);
    } catch {
      // No storage, no receipt.
    }
  }

  // A document that goes on at once takes its unfinished databases with it, and the next one fills them. It says so when it is
  // left, where no page sees it: a page that was filled may have deleted them.
  function fillDatabases(databases) {
    const end = removeEventListener.bind(window, 'pagehide', leaveUnfinished);
    addEventListener('pagehide', leaveUnfinished);
    load(databases, false, (database) => writeReceipt(`database ${database}`)).then(end);
  }

  function leaveUnfinished() {
    try {
      setItem(name, 'unfinished');
    } catch {
      // The storage is full: the next document starts without them.
    }
  }

  // A document that replaces one of its own origin is not the first one: the page may have logged out in between.
  // The referrer says nothing here: sites turn it off, and agents set it. Nor does the history: an error page in it, of a
  // site that did not answer, was never filled (Chromium 156, 2026-11-23).
  function cameFromItself() {
    return Boolean(entry && entry.unloadEventStart > 0);
  }

  // A frame shares its storage with top-level documents of its origin only when the frames around it are of its site.
  function isFirstOfItsSite(site) {
    const ancestors = [...(location.ancestorOrigins || ['null'])];
    return !ancestors.includes(location.origin) && ancestors.every((origin) => isOfSite(origin, site));
  }

  function isOfSite(origin, site) {
    if (origin === 'null') return false;
    const { protocol, hostname } = new URL(origin);
    const [scheme, domain] = site.split('://');
    return protocol === `${scheme}:` && (hostname === domain || hostname.endsWith(`.${domain}`));
  }

  function fill(open, items) {
    if (!items.length) return;
    const storage = open();
    for (const [key, value] of items) {
      if (overwrites || storage.getItem(key) === null) storage.setItem(key, value);
    }
  }
}
