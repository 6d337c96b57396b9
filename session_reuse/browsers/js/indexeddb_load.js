// Creates databases of an origin and fills them. Must never touch a database that exists: what is there is newer.
//
// databases: ours, {name, version, dump: JSON text}, or Playwright's, {name, version, stores}.
// The databases are requested before this function returns, and each is filled within its upgrade: a page that opens
// one of them in the same document, however early, finds it filled. Only CryptoKeys have to be awaited first.
async (databases) => {
  const keys = new Map();
  const jobs = databases.map((database) => ({ ...database, stores: storesOf(database) }));
  if (databases.some((database) => database.keys)) await importKeys();
  return (await Promise.all(jobs.map(create))).filter((reason) => reason);

  function storesOf({ dump, stores }) {
    if (dump) return JSON.parse(dump).map((store) => ({ ...store, decode: (value) => decode(value, []) }));
    return stores.map((store) => ({
      name: store.name,
      keyPath: store.keyPathArray || store.keyPath,
      autoIncrement: store.autoIncrement,
      indexes: store.indexes.map((index) => ({ ...index, keyPath: index.keyPathArray || index.keyPath })),
      records: store.records.map((record) => [
        'keyEncoded' in record ? { encoded: record.keyEncoded } : { plain: record.key },
        'valueEncoded' in record ? { encoded: record.valueEncoded } : { plain: record.value },
      ]),
      decode: ({ plain, encoded }) => (encoded === undefined ? plain : decodePlaywright(encoded, new Map())),
    }));
  }

  function create({ name, version, stores }) {
    return new Promise((resolve) => {
      const request = indexedDB.open(name, version);
      let reason = '';
      request.onupgradeneeded = (event) => {
        if (event.oldVersion) return request.transaction.abort();
        try {
          for (const store of stores) fillStore(request.result, store);
        } catch (error) {
          reason = `${name}: ${error.name}`;
          request.transaction.abort();
        }
      };
      request.onsuccess = () => resolve(request.result.close());
      request.onerror = (event) => {
        event.preventDefault();
        resolve(reason);
      };
    });
  }

  function fillStore(database, { name, keyPath, autoIncrement, indexes, records, decode }) {
    const path = keyPath === undefined ? null : keyPath;
    const store = database.createObjectStore(name, { keyPath: path, autoIncrement });
    for (const { name, keyPath, unique, multiEntry } of indexes) store.createIndex(name, keyPath, { unique, multiEntry });
    for (const [key, value] of records) {
      if (path === null) store.put(decode(value), decode(key));
      else store.put(decode(value));
    }
  }

  // The inverse of `encode` in indexeddb_dump.js: refs are numbered in the order in which objects are met.
  function decode(value, refs) {
    if (!Array.isArray(value)) return value;
    const [tag, first, second, third, fourth] = value;
    const known = (object) => (refs.push(object), object);
    switch (tag) {
      case 'u': return undefined;
      case 'n': return Number(first);
      case 'i': return BigInt(first);
      case 'r': return refs[first];
      case 'd': return known(new Date(first === null ? NaN : first));
      case 'x': return known(new RegExp(first, second));
      case 'w': return known(Object(decode(first, refs)));
      case 'b': return known(new Blob([bytes(first)], { type: second }));
      case 'f': return known(new File([bytes(first)], third, { type: second, lastModified: fourth }));
      case 'y': return known(bytes(first).buffer);
      case 'v': return view(first, second, third, fourth, refs);
      case 'k': return known(keys.get(JSON.stringify(value)));
      case 'e': return error(first, second, third, refs, known);
      case 'm': return entries(known(new Map()), first, refs);
      case 's': return members(known(new Set()), first, refs);
      case 'a': return items(known([]), first, refs);
      case 'h': return properties(known(new Array(first)), second, refs);
      case 'o': return properties(known({}), Object.entries(first), refs);
      default: throw new TypeError('unknown tag');
    }
  }

  function view(name, buffer, offset, length, refs) {
    const index = refs.push(null) - 1;
    return (refs[index] = new globalThis[name](decode(buffer, refs), offset, length));
  }

  function error(name, message, stack, refs, known) {
    const type = /^[A-Z][a-z]+Error$/.test(name) && globalThis[name] ? globalThis[name] : Error;
    const object = known(new type(message));
    return Object.defineProperty(object, 'stack', { value: stack, writable: true, configurable: true });
  }

  function entries(map, pairs, refs) {
    for (const [key, value] of pairs) map.set(decode(key, refs), decode(value, refs));
    return map;
  }

  function members(set, values, refs) {
    for (const value of values) set.add(decode(value, refs));
    return set;
  }

  function items(array, content, refs) {
    for (const value of content) array.push(decode(value, refs));
    return array;
  }

  function properties(object, pairs, refs) {
    for (const [key, value] of pairs) {
      const content = { value: decode(value, refs), enumerable: true, writable: true, configurable: true };
      Object.defineProperty(object, key, content);
    }
    return object;
  }

  function bytes(base64) {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  }

  async function importKeys() {
    for (const job of jobs) for (const store of job.stores) for (const record of store.records) await importFrom(record);
  }

  async function importFrom(value) {
    if (value === null || typeof value !== 'object') return;
    if (Array.isArray(value) && value[0] === 'k') {
      const [, jwk, algorithm, usages] = value;
      keys.set(JSON.stringify(value), await crypto.subtle.importKey('jwk', jwk, algorithm, true, usages));
    } else {
      for (const content of Object.values(value)) await importFrom(content);
    }
  }

  // The encoding of Playwright's storage_state(indexed_db=True), for states that were made by it.
  function decodePlaywright(value, refs) {
    if (value === null || typeof value !== 'object') return value;
    if ('ref' in value) return refs.get(value.ref);
    if ('v' in value) return { undefined, null: null, NaN, Infinity, '-Infinity': -Infinity, '-0': -0 }[value.v];
    if ('d' in value) return new Date(value.d);
    if ('bi' in value) return BigInt(value.bi);
    if ('r' in value) return new RegExp(value.r.p, value.r.f);
    if ('e' in value) return Object.assign(new Error(value.e.m), { name: value.e.n, stack: value.e.s });
    if ('ta' in value) return typedArray(value.ta);
    if ('ab' in value) return bytes(value.ab.b).buffer;
    const known = (object) => (refs.set(value.id, object), object);
    if ('m' in value) return decodeAll(value.m, known(new Map()), (map, { k, v }) => map.set(inner(k), inner(v)));
    if ('s' in value) return decodeAll(value.s, known(new Set()), (set, item) => set.add(inner(item)));
    if ('a' in value) return decodeAll(value.a, known([]), (array, item) => array.push(inner(item)));
    if ('o' in value) return decodeAll(value.o, known({}), (object, { k, v }) => (object[k] = inner(v)));
    throw new TypeError('unknown encoding');

    function inner(content) {
      return decodePlaywright(content, refs);
    }
  }

  function decodeAll(contents, object, add) {
    for (const content of contents) add(object, content);
    return object;
  }

  function typedArray({ b, k }) {
    const name = { i8: 'Int8', ui8: 'Uint8', ui8c: 'Uint8Clamped', i16: 'Int16', ui16: 'Uint16', i32: 'Int32',
      ui32: 'Uint32', f32: 'Float32', f64: 'Float64', bi64: 'BigInt64', bui64: 'BigUint64' }[k];
    return new globalThis[`${name}Array`](bytes(b).buffer);
  }
}
