// Tells what a document has stored just before it is left. Must never run in the page's own world.
//
// Events of writes in the last milliseconds get lost when the document's process is exchanged (seen with Chromium 156,
// 2026-11-22): they come back from the storage process first. This handler runs before the navigation starts.
(binding) => {
  if (window !== window.top) return;
  const read = (storage) => Array.from({ length: storage.length }, (_, index) => storage.key(index)).map((key) => [key, storage.getItem(key)]);
  addEventListener('beforeunload', () => {
    try {
      const text = JSON.stringify({ origin: location.origin, local: read(localStorage), session: read(sessionStorage) });
      globalThis[binding](text);
    } catch {
      // No storage for this document, or nobody listens any more.
    }
  });
}
