// Fills the storage of one document before its own scripts run.
//
// name: of the property that holds what is stored of the document's origin: {load, payloads, entry}. Each payload is {l: [[key, value]],
// s: [[key, value]], d: JSON text of databases, site: scheme and registrable domain}; `load` fills databases;
// `entry` is the document's navigation entry.
// overwrites: whether keys that are there are replaced.
// done: {origin: [parts that are not filled: `localStorage`, `sessionStorage`, `database NAME`]}.
// A document sends a receipt for its web storage, and one for each database as soon as that is there for good.
(name, overwrites, done) => {
  const stored = self[name];
  delete self[name];
  if (!stored || window.credentialless) return; // a credentialless frame has a storage of its own
  const { payloads, load, entry } = stored;
  const { origin } = self;
  // No page finds this anywhere. DevTools reports it in its domain `Performance`: also out of a document that is left at once,
  // and ahead of the next one (Chromium 156, 2026-11-28).
  const report = console.timeStamp?.bind(console);
  const sendReceipt = (receipt) => report?.(`${name} ${origin} ${receipt}`);
  hush(payloads.flatMap(({ l, s }) => [...l, ...s]));
  try {
    if (location.origin !== origin) return; // `about:blank`
    if (window !== window.top && !isFirstOfItsSite(payloads[0].site)) return;
    const skipped = done[origin] || [];
    const [local, tab] = [localStorage, sessionStorage];
    const isFirst = !cameFromItself();
    for (const { d } of payloads) {
      const databases = d ? JSON.parse(d).filter((each) => !skipped.includes(`database ${each.name}`)) : [];
      load?.(databases, { sendReceipt, permission: isFirst ? null : name });
    }
    if (isFirst) fillWebStorage(local, tab, skipped);
  } catch {
    // Storage is denied to this document: it starts as it would have without us.
  }

  function fillWebStorage(local, tab, skipped) {
    const [isLocal, isTab] = ['localStorage', 'sessionStorage'].map((each) => !skipped.includes(each));
    let receipt = isLocal ? 'failed' : 'skipped';
    try {
      if (isLocal) payloads.forEach(({ l }) => fill(local, l));
      if (isLocal) receipt = 'filled'; // the events of sessionStorage tell what that has got
      if (isTab) payloads.forEach(({ s }) => fill(tab, s));
    } catch {
      // It is full.
    }
    if (isLocal || isTab) sendReceipt(`${receipt} localStorage`);
  }

  // Other documents of the origin, such as a frame that the page makes at once, get an event of each item that one of them fills
  // in. To a page it was there before.
  function hush(items) {
    const [keyOf, valueOf, oldValueOf, stop, now] = [
      ...['key', 'newValue', 'oldValue'].map((each) => Object.getOwnPropertyDescriptor(StorageEvent.prototype, each).get),
      Event.prototype.stopImmediatePropagation,
      Performance.prototype.now,
    ].map((method) => Function.prototype.call.bind(method));
    const clock = performance;
    const filled = { __proto__: null };
    for (const [key, value] of items) filled[`${key}\0${value}`] = true;
    const listener = (event) => {
      const item = `${keyOf(event)}\0${valueOf(event)}`;
      if (!filled[item] || oldValueOf(event) !== null || now(clock) > 5000) return;
      delete filled[item];
      stop(event);
    };
    addEventListener('storage', listener, true);
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

  function fill(storage, items) {
    for (const [key, value] of items) {
      if (overwrites || storage.getItem(key) === null) storage.setItem(key, value);
    }
  }
}
