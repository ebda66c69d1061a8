// Ask the search of a built site, as its pages do: search.js WORKER INDEX QUERY ... prints one JSON line a query.
const fs = require("fs");
const [worker, index, ...queries] = process.argv.slice(2);
let receive;
const answers = [];
globalThis.self = globalThis;
globalThis.addEventListener = (_, listener) => { receive = listener; };
globalThis.postMessage = (message) => answers.push(message);
(0, eval)(fs.readFileSync(worker, "utf8"));
(async () => {
  await receive({ data: { type: 0, data: { options: {}, ...JSON.parse(fs.readFileSync(index, "utf8")) } } });
  for (const query of queries) {
    await receive({ data: { type: 2, data: query } });
    const { items } = answers.at(-1).data;
    console.log(JSON.stringify(items.map((sections) => sections[0].location)));
  }
})();
