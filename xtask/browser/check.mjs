// Drives a report in a browser as a reader does: see xtask/src/browser.rs.
// Arguments: the browser, a page, a page with many functions, the folder for screenshots.
import { chromium } from 'playwright-core';
import path from 'node:path';

const [executablePath, page, many, folder] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
const problems = [];
async function open(file, options) {
  const tab = await browser.newPage(options);
  // A violation of the page's security policy is a console message, too.
  tab.on('console', message => problems.push(`${file}: ${message.text()}`));
  tab.on('pageerror', error => problems.push(`${file}: ${error}`));
  tab.on('request', request => {
    if (!request.url().startsWith('file:')) problems.push(`${file}: asks for ${request.url()}`);
  });
  await tab.goto('file://' + path.resolve(file));
  return tab;
}
for (const colorScheme of ['light', 'dark']) {
  for (const width of [1280, 420]) {
    const tab = await open(page, { colorScheme, viewport: { width, height: 1000 } });
    for (const summary of await tab.$$('.function > summary')) await summary.click();
    await tab.screenshot({ path: path.join(folder, `${colorScheme}-${width}.png`) });
    const wide = await tab.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    if (wide) problems.push(`${colorScheme} ${width}: the page scrolls sideways`);
    await tab.close();
  }
}
const tab = await open(many, { viewport: { width: 1280, height: 1000 } });
const found = start => tab.waitForFunction(
  text => document.getElementById('found').textContent.startsWith(text), start, { timeout: 10000 });
const all = await tab.$$eval('.function', functions => functions.length);
// By keyboard alone: filter, go to the function that is left, open it.
const begin = Date.now();
await tab.keyboard.press('/');
await tab.keyboard.type(`copy_${all - 1}_`);
await found(`1 of ${all}`);
const seconds = (Date.now() - begin) / 1000;
await tab.keyboard.press('Tab');
await tab.keyboard.press('Enter');
await tab.waitForSelector('.function[open] .diff .new', { timeout: 10000 });
if (await tab.$$eval('.diff', diffs => diffs.length) !== 1) problems.push('one diff expected');
await tab.fill('#search', 'no such function');
await found(`0 of ${all}`);
await tab.fill('#search', '');
await found(`${all} of ${all}`);
await browser.close();
console.log(`${all} functions filtered in ${seconds.toFixed(1)} s`);
for (const problem of problems) console.error(problem);
process.exit(problems.length ? 1 : 0);
