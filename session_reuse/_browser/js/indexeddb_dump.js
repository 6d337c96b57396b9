// Reads the databases of an origin as JSON text. A value that cannot be read is named in `lost`.
//
// cap: how many characters of JSON all databases together may take; small ones come first.
// only: names of the databases to read, or null for all.
// Returns JSON text {databases: [{name, version, stores} or {name, version, keys, dump}], lost: [[where, reason]], names}:
// `stores` in Playwright's form where JSON can say everything in a database, else `dump`, our own encoding, and beside
// it the CryptoKeys, because importing one is asynchronous.
async (cap, only) => {
  class TooLarge extends Error {}
  class Lost extends Error {}
  const MAX_DEPTH = 400;
  const lost = [];
  const copies = [];
  const names = [];
  for (const { name } of await indexedDB.databases()) {
    try {
      if (!only || only.includes(name)) copies.push(await dumpDatabase(name));
    } catch (error) {
      if (!(await indexedDB.databases()).some((other) => other.name === name)) continue; // deleted meanwhile
      lost.push([name, error instanceof TooLarge ? 'over the size cap' : String(error && error.name)]);
    }
    names.push(name);
  }
  let left = cap;
  const databases = [];
  for (const { size, database } of copies.sort((one, other) => one.size - other.size)) {
    if (size <= left) databases.push(database);
    else lost.push([database.name, 'over the size cap']);
    left -= size;
  }
  return JSON.stringify({ databases, lost, names });

  async function dumpDatabase(name) {
    const context = { name, isPlain: true, keys: [], pending: [], size: 0 };
    const request = indexedDB.open(name);
    request.onupgradeneeded = () => request.transaction.abort(); // deleted meanwhile, and not to be made again
    const database = await promised(request);
    const before = lost.length;
    let isInTheWay = false;
    let transaction = null;
    database.onversionchange = () => {
      // Else the page's own upgrade or deletion is `blocked`, and waits for the whole copy.
      isInTheWay = true;
      transaction?.abort();
      database.close();
    };
    try {
      const stores = [];
      const names = [...database.objectStoreNames];
      // One for all stores: what the page changes at once is copied at once.
      if (names.length) transaction = database.transaction(names);
      for (const store of names) stores.push(await dumpStore(transaction.objectStore(store), context));
      database.close();
      for (const store of stores) await complete(store, context);
      const content = context.isPlain ? { stores: stores.map(asPlaywright) } : { keys: context.keys, dump: JSON.stringify(stores) };
      return { size: context.size, database: { name, version: database.version, ...content } };
    } catch (error) {
      if (!isInTheWay) throw error;
      lost.length = before;
    } finally {
      database.close();
    }
    return dumpDatabase(name);
  }

  // A cursor, because it stops at the first record over the cap: a page of records would have to be read as a whole.
  async function dumpStore(store, context) {
    const { name, autoIncrement } = store;
    const keyPath = listed(store.keyPath);
    const indexes = [...store.indexNames].map((index) => {
      const { name, keyPath, unique, multiEntry } = store.index(index);
      return { name, keyPath: listed(keyPath), unique, multiEntry };
    });
    const records = [];
    const request = store.openCursor();
    for (let cursor; (cursor = await promised(request)); cursor.continue()) {
      const record = dumpRecord(keyPath === null ? cursor.key : null, cursor.value, name, context);
      if (record) records.push(record);
    }
    return { name, keyPath, autoIncrement, indexes, records };
  }

  function dumpRecord(key, value, store, context) {
    const { size } = context;
    const isPlain = isJson(key, 0, new Set()) && isJson(value, 0, new Set());
    context.pending = [];
    try {
      const record = [encode(key, new Map(), context, 0), encode(value, new Map(), context, 0)];
      count(JSON.stringify(record).length, context);
      context.isPlain = context.isPlain && isPlain;
      return Object.assign(record, { raw: [key, value], pending: context.pending });
    } catch (error) {
      context.size = size;
      return noteLost(error, store, context);
    }
  }

  // What takes time is read at last: a transaction ends when nothing is asked of it.
  async function complete(store, context) {
    const { records } = store;
    store.records = [];
    for (const record of records) {
      try {
        for (const read of record.pending) await read();
        store.records.push(record);
      } catch (error) {
        noteLost(error, store.name, context);
      }
    }
  }

  function noteLost(error, store, context) {
    if (error instanceof TooLarge) throw error;
    lost.push([`${context.name}/${store}`, error instanceof Lost ? error.message : String(error && error.name)]);
    context.isPlain = false;
    return null;
  }

  // What JSON says exactly: JSON.stringify and JSON.parse would give the same value back.
  // An object met before is none: JSON would make two of it. 22 levels of pairs took 1.7 s, each more twice that (2026-11-27).
  function isJson(value, depth, met) {
    if (value === null || typeof value === 'boolean') return true;
    if (typeof value === 'string') return value.isWellFormed();
    if (typeof value === 'number') return Number.isFinite(value) && !Object.is(value, -0);
    if (typeof value !== 'object' || depth > 40 || met.has(value)) return false;
    met.add(value);
    // First: the entries of 30 MB in a typed array kept a page busy for more than 12 s (Chromium 156, 2026-11-27).
    if (Array.isArray(value) ? !isDense(value) : tagOf(value) !== 'Object') return false;
    return Object.entries(value).every(([key, content]) => key.isWellFormed() && key !== '__proto__' && isJson(content, depth + 1, met));
  }

  // Whether an array has all of its elements, and nothing else.
  function isDense(array) {
    const keys = Object.keys(array);
    return keys.length === array.length && keys.every((key, index) => key === String(index));
  }

  function asPlaywright({ name, keyPath, autoIncrement, indexes, records }) {
    return {
      name,
      autoIncrement,
      ...pathOf(keyPath),
      indexes: indexes.map((index) => ({ name: index.name, unique: index.unique, multiEntry: index.multiEntry, ...pathOf(index.keyPath) })),
      records: records.map(({ raw: [key, value] }) => (keyPath === null ? { key, value } : { value })),
    };
  }

  function pathOf(keyPath) {
    if (keyPath === null) return {};
    return Array.isArray(keyPath) ? { keyPathArray: keyPath } : { keyPath };
  }

  function listed(keyPath) {
    return keyPath === null || typeof keyPath === 'string' ? keyPath : [...keyPath];
  }

  // Values that JSON has are themselves, all others arrays [tag, ...]; an object met again is ['r', its number].
  function encode(value, seen, context, depth) {
    if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
    if (value === undefined) return ['u'];
    if (typeof value === 'bigint') return ['i', String(value)];
    if (typeof value === 'number') return isJson(value, 0) ? value : ['n', Object.is(value, -0) ? '-0' : String(value)];
    if (seen.has(value)) return ['r', seen.get(value)];
    if (depth > MAX_DEPTH) throw new Lost('nested too deeply');
    seen.set(value, seen.size);
    const inner = (content) => encode(content, seen, context, depth + 1);
    const tag = tagOf(value);
    // Whether it follows the length of its buffer cannot be asked.
    if (ArrayBuffer.isView(value) && value.buffer.resizable) throw new Lost('view of a resizable ArrayBuffer');
    if (ArrayBuffer.isView(value)) return ['v', tag, inner(value.buffer), value.byteOffset, value.length ?? value.byteLength];
    switch (tag) {
      case 'Object': return ['o', Object.fromEntries(Object.entries(value).map(([key, content]) => [key, inner(content)]))];
      case 'Array': return encodeArray(value, inner);
      case 'Map': return ['m', [...value].map(([key, content]) => [inner(key), inner(content)])];
      case 'Set': return ['s', [...value].map(inner)];
      case 'Date': return ['d', value.getTime()];
      case 'RegExp': return ['x', value.source, value.flags];
      case 'Error': return ['e', value.name, value.message, String(value.stack), ...(Object.hasOwn(value, 'cause') ? [inner(value.cause)] : [])];
      case 'Boolean': case 'Number': case 'String': case 'BigInt': return ['w', inner(value.valueOf())];
      case 'ArrayBuffer': return encodeBuffer(value, context);
      case 'Blob': return encodeBlob(['b', null, value.type], value, context);
      case 'File': return encodeBlob(['f', null, value.type, value.name, value.lastModified], value, context);
      case 'CryptoKey': return encodeKey(value, context);
      default: throw new Lost(tag);
    }
  }

  function encodeArray(value, inner) {
    if (isDense(value)) return ['a', value.map(inner)];
    return ['h', value.length, Object.entries(value).map(([key, content]) => [key, inner(content)])];
  }

  function encodeKey(value, context) {
    if (!value.extractable) throw new Lost('non-extractable CryptoKey');
    const hash = value.algorithm.hash ? { hash: value.algorithm.hash.name } : {};
    const { name, namedCurve, length } = value.algorithm;
    const algorithm = JSON.parse(JSON.stringify({ name, namedCurve, length, ...hash }));
    return later(['k', null], context, async () => {
      const key = { jwk: await crypto.subtle.exportKey('jwk', value), algorithm, usages: value.usages };
      count(JSON.stringify(key).length, context);
      return context.keys.push(key) - 1;
    });
  }

  function encodeBuffer(buffer, context) {
    if (buffer.byteLength > cap - context.size) throw new TooLarge();
    return ['y', base64(buffer), ...(buffer.resizable ? [buffer.maxByteLength] : [])];
  }

  function encodeBlob(encoded, blob, context) {
    count(4 * Math.ceil(blob.size / 3), context);
    return later(encoded, context, async () => base64(await blob.arrayBuffer()));
  }

  function later(encoded, context, read) {
    context.pending.push(async () => (encoded[1] = await read()));
    return encoded;
  }

  function base64(buffer) {
    const bytes = new Uint8Array(buffer);
    let text = '';
    for (let start = 0; start < bytes.length; start += 32768) text += String.fromCharCode(...bytes.subarray(start, start + 32768));
    return btoa(text);
  }

  function count(size, context) {
    context.size += size;
    if (context.size > cap) throw new TooLarge();
  }

  function tagOf(value) {
    return Object.prototype.toString.call(value).slice(8, -1);
  }

  function promised(request) {
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new DOMException('blocked', 'InvalidStateError'));
    });
  }
}
