// Reads the web storage of a document where no debugging protocol is at hand. Throws where the document has none.
() => {
  const read = (storage) =>
    Array.from({ length: storage.length }, (_, index) => storage.key(index)).map((key) => [key, storage.getItem(key)]);
  return { local: read(localStorage), session: read(sessionStorage) };
}
