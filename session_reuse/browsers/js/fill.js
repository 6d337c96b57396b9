// Fills the storage of one origin on a hidden page, where time does not matter. Must never remove anything.
//
// data: {l: [[key, value]], d: [database]}. Returns where it could not, each as a text without a value.
async (data, load) => {
  const failed = [];
  for (const [key, value] of data.l) {
    try {
      localStorage.setItem(key, value);
    } catch (error) {
      failed.push(`localStorage: ${error.name}`);
      break;
    }
  }
  if (data.d) failed.push(...(await load(data.d)));
  return failed;
}
