// Reads the web storage of a document where no debugging protocol is at hand.
() => {
  const read = (open) => {
    try {
      const storage = open();
      return Array.from({ length: storage.length }, (_, index) => storage.key(index)).map((key) => [key, storage.getItem(key)]);
    } catch {
      return [];
    }
  };
  return { local: read(() => localStorage), session: read(() => sessionStorage) };
}
