// Creates databases of an origin and fills them. A database that exists is newer and stays as it is.
//
// databases: ours, {name, version, keys, dump: JSON text}, or Playwright's, {name, version, stores}.
// start: of a document that is just starting, else null. It has no time to look first which databases there are, though opening one
// disturbs pages that hold an older version: the database is opened before any script of the page can do so.
//   sendReceipt: is called with `filled database NAME` before the page finds it, or with `failed database NAME`.
//   permission: null, or what the events begin with that say `fill database NAME` or `leave database NAME`. They answer the receipt
//   `asks database NAME`. Without an answer, the database is not filled.
// Returns a text for each of them: why it could not be filled, or ''. Nobody reads these in a document that is just starting.
// A database is filled within its upgrade, so the page's own `open` waits, and nobody ever finds it half full.
async (databases, start = null) => {
  const MAX_WAIT = 2000;
  const isPatient = start === null;
  // A page may replace natives before its databases are filled: all that is used then is bound now, and no list is iterated.
  const unbound = (method) => Function.prototype.call.bind(method);
  const property = (type, name) => Object.getOwnPropertyDescriptor(type.prototype, name);
  const [createObjectStore, close] = ['createObjectStore', 'close'].map((name) => unbound(IDBDatabase.prototype[name]));
  const [createIndex, put, get] = ['createIndex', 'put', 'get'].map((name) => unbound(IDBObjectStore.prototype[name]));
  const [resultOf, transactionOf, errorOf] = ['result', 'transaction', 'error'].map((name) => unbound(property(IDBRequest, name).get));
  const listen = unbound(property(IDBRequest, 'onsuccess').set);
  const oldVersionOf = unbound(property(IDBVersionChangeEvent, 'oldVersion').get);
  const [abort, preventDefault] = [IDBTransaction.prototype.abort, Event.prototype.preventDefault].map(unbound);
  const now = performance.now.bind(performance);

  const there = new Set(isPatient ? (await indexedDB.databases()).map(({ name }) => name) : []);
  const missing = databases.filter(({ name }) => !there.has(name));
  return Promise.all(missing.map(create));

  function storesOf({ dump, stores }) {
    if (dump) return JSON.parse(dump).map((store) => ({ ...store, decode: (value, keys) => decode(value, [], keys) }));
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

  function create({ name, version, keys, ...content }) {
    const stores = storesOf(content);
    const decoded = (imported) => stores.map(({ records, decode }) => records.map((record) => record.map((value) => decode(value, imported))));
    const importKey = ({ jwk, algorithm, usages }) => crypto.subtle.importKey('jwk', jwk, algorithm, true, usages);
    const named = (error) => (isPatient ? `${name}: ${error.name}` : name);
    const sendReceipt = (outcome) => start?.sendReceipt(`${outcome} database ${name}`);
    let values = null;
    let failure = null;
    let isAllowed = !start?.permission;
    if (!isAllowed) {
      addEventListener(`${start.permission} fill database ${name}`, () => (isAllowed = true));
      addEventListener(`${start.permission} leave database ${name}`, () => (failure = true));
    }
    try {
      if (!keys || !keys.length) values = decoded([]);
      else Promise.all(keys.map(importKey)).then((imported) => (values = decoded(imported))).catch((error) => (failure = error));
    } catch (error) {
      sendReceipt('failed');
      return named(error);
    }
    return new Promise((resolve) => {
      const request = indexedDB.open(name, version);
      let reason = '';
      let isNew = false;
      let created = null;
      let until = Infinity;
      request.onupgradeneeded = (event) => {
        isNew = oldVersionOf(event) === 0;
        if (!isNew) return abort(transactionOf(request));
        if (!isAllowed) {
          until = now() + MAX_WAIT;
          sendReceipt('asks');
        }
        fill();
      };
      request.onsuccess = () => {
        close(resultOf(request));
        if (isNew) sendReceipt('filled');
        resolve(reason);
      };
      request.onblocked = () => resolve(reason); // a page was faster
      request.onerror = (event) => {
        preventDefault(event);
        if (isNew) sendReceipt('failed');
        const isThere = !isNew && isPatient && ['AbortError', 'VersionError'].includes(errorOf(request).name); // of another version
        resolve(isThere ? '' : reason || named(errorOf(request)));
      };

      function fill() {
        try {
          created ||= createStores(resultOf(request), stores);
          if (failure || now() > until) throw failure;
          // Importing a key is asynchronous, so is an answer, and an upgrade ends when nothing is asked of it.
          if (values && (isAllowed || !created.length)) fillStores(created, stores, values);
          else listen(get(created[0], 0), fill);
        } catch (error) {
          reason = named(error);
          abort(transactionOf(request));
        }
      }
    });
  }

  function createStores(database, stores) {
    const created = [];
    for (let index = 0; index < stores.length; index++) {
      const { name, keyPath = null, autoIncrement, indexes } = stores[index];
      created[index] = createObjectStore(database, name, { keyPath, autoIncrement });
      for (let number = 0; number < indexes.length; number++) {
        const { name, keyPath, unique, multiEntry } = indexes[number];
        createIndex(created[index], name, keyPath, { unique, multiEntry });
      }
    }
    return created;
  }

  function fillStores(created, stores, values) {
    for (let index = 0; index < stores.length; index++) {
      const hasKeys = (stores[index].keyPath ?? null) === null;
      for (let number = 0; number < values[index].length; number++) {
        const { 0: key, 1: value } = values[index][number];
        if (hasKeys) put(created[index], value, key);
        else put(created[index], value);
      }
    }
  }

  // The inverse of `encode` in indexeddb_dump.js: refs are numbered in the order in which objects are met.
  function decode(value, refs, keys) {
    if (!Array.isArray(value)) return value;
    const inner = (content) => decode(content, refs, keys);
    const { 0: tag, 1: first, 2: second, 3: third, 4: fourth } = value;
    const known = (object) => (refs.push(object), object);
    switch (tag) {
      case 'u': return undefined;
      case 'n': return Number(first);
      case 'i': return BigInt(first);
      case 'r': return refs[first];
      case 'd': return known(new Date(first === null ? NaN : first));
      case 'x': return known(new RegExp(first, second));
      case 'w': return known(Object(inner(first)));
      case 'b': return known(new Blob([bytes(first)], { type: second }));
      case 'f': return known(new File([bytes(first)], third, { type: second, lastModified: fourth }));
      case 'y': return known(buffer(first, second));
      case 'v': return view(first, second, third, fourth, refs, inner);
      case 'k': return known(keys[first]);
      case 'e': return filled(known(error(first, second, third)), fourth === undefined ? [] : [fourth], (object, cause) => hide(object, 'cause', inner(cause)));
      case 'm': return filled(known(new Map()), first, (map, [key, content]) => map.set(inner(key), inner(content)));
      case 's': return filled(known(new Set()), first, (set, content) => set.add(inner(content)));
      case 'a': return filled(known([]), first, (array, content) => array.push(inner(content)));
      case 'h': return filled(known(new Array(first)), second, (array, [key, content]) => define(array, key, inner(content)));
      case 'o': return filled(known({}), Object.entries(first), (object, [key, content]) => define(object, key, inner(content)));
      default: throw new TypeError('unknown tag');
    }
  }

  function view(name, buffer, offset, length, refs, inner) {
    const index = refs.push(null) - 1;
    return (refs[index] = new globalThis[name](inner(buffer), offset, length));
  }

  function error(name, message, stack) {
    const types = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
    return hide(new (types[name] || Error)(message), 'stack', stack);
  }

  function hide(object, key, value) {
    return Object.defineProperty(object, key, { value, writable: true, configurable: true });
  }

  function buffer(base64, maxByteLength) {
    const content = bytes(base64);
    const made = new ArrayBuffer(content.length, { maxByteLength });
    new Uint8Array(made).set(content);
    return made;
  }

  function filled(object, contents, add) {
    for (const content of contents) add(object, content);
    return object;
  }

  function define(object, key, value) {
    Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true });
  }

  function bytes(base64) {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
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
    if ('m' in value) return filled(known(new Map()), value.m, (map, { k, v }) => map.set(inner(k), inner(v)));
    if ('s' in value) return filled(known(new Set()), value.s, (set, item) => set.add(inner(item)));
    if ('a' in value) return filled(known([]), value.a, (array, item) => array.push(inner(item)));
    if ('o' in value) return filled(known({}), value.o, (object, { k, v }) => define(object, k, inner(v)));
    throw new TypeError('unknown encoding');

    function inner(content) {
      return decodePlaywright(content, refs);
    }
  }

  function typedArray({ b, k }) {
    const name = { i8: 'Int8', ui8: 'Uint8', ui8c: 'Uint8Clamped', i16: 'Int16', ui16: 'Uint16', i32: 'Int32',
      ui32: 'Uint32', f32: 'Float32', f64: 'Float64', bi64: 'BigInt64', bui64: 'BigUint64' }[k];
    return new globalThis[`${name}Array`](bytes(b).buffer);
  }
}
