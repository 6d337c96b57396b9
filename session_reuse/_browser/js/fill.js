// Fills the storage of a page that is open, where time does not matter, unless it holds something already.
//
// payload: {l: [[key, value]], s: [[key, value]], d: JSON text of databases}. load: of databases.
// isLeft: whether the page is closed afterwards.
// Returns {isOpen: whether it held something, failed: texts without a value, each with its section first}.
async ({ l, s, d }, load, isLeft) => {
  const failed = [];
  const wanted = [['localStorage', l], ['sessionStorage', s]].filter(([, items]) => items.length);
  if (wanted.some(([name]) => self[name].length)) return { isOpen: true, failed };
  const arrived = isLeft && l.length && arrival(l[l.length - 1][0]);
  for (const [name, items] of wanted) {
    try {
      for (const [key, value] of items) self[name].setItem(key, value);
    } catch (error) {
      failed.push(`${name}: ${error.name}`);
    }
  }
  if (!failed.length) await arrived;
  if (d) failed.push(...(await load(JSON.parse(d))).filter((reason) => reason).map((reason) => `databases: ${reason}`));
  return { isOpen: false, failed };

  // `setItem` returns while the write is on its way, and a page that is closed then may take it along: 11 of 45 with 5 MB
  // (Chromium 156, busy machine, 2026-11-26). Other documents of the origin hear of it when it has arrived.
  function arrival(key) {
    const frame = document.createElement('iframe');
    document.documentElement.append(frame);
    return new Promise((done) => {
      frame.contentWindow.addEventListener('storage', (event) => event.key === key && done());
    });
  }
}
