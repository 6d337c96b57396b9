// An agent in Node: opens a page over the browser's address, and keeps a value there.
import { createRequire } from 'node:module';

const [folder, url, name] = process.argv.slice(2);
const { chromium } = createRequire(`${folder}/`)('playwright-core');
const browser = await chromium.connectOverCDP(process.env.CDP_URL);
const page = await browser.contexts()[0].newPage();
await page.goto(url);
await page.waitForFunction(() => document.title.startsWith('done'));
await page.evaluate((name) => localStorage.setItem(name, 'yes'), name);
console.log(await page.title());
await browser.close();
