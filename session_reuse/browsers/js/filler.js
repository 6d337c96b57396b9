// Runs in a document of ours that stands in for an origin while the site's own document is held. Must never leave
// without saying so: somebody waits.
//
// origin: whose storage it is. limit: milliseconds. fill: returns a promise of what failed. done: URL to report to.
(origin, limit, fill, done) => {
  const leave = (failed) => location.replace(done + encodeURIComponent(JSON.stringify(failed)));
  if (location.origin !== origin) return leave(['the browser went to another origin']);
  setTimeout(leave, limit, ['took too long']);
  fill().then(leave, (error) => leave([error.name]));
}
