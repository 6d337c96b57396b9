// Fills the storage of a page that is open, where time does not matter, unless it holds something already.
//
// payload: {l: [[key, value]], s: [[key, value]], d: JSON text of databases}. load: of databases.
// Returns {isOpen: whether it held something, failed: texts without a value, each with its section first}.
async ({ l, s, d }, load) => {
  const failed = [];
  const wanted = [['localStorage', l], ['sessionStorage', s]].filter(([, items]) => items.length);
  if (wanted.some(([name]) => self[name].length)) return { isOpen: true, failed };
  for (const [name, items] of wanted) {
    try {
      for (const [key, value] of items) self[name].setItem(key, value);
    } catch (error) {
      failed.push(`${name}: ${error.name}`);
    }
  }
  if (d) failed.push(...(await load(JSON.parse(d), true)).map((reason) => `databases: ${reason}`));
  return { isOpen: false, failed };
}
