// node shoot.mjs URL FILE WIDTH HEIGHT: a picture of the page, once all of its panels are drawn.
import {chromium} from 'playwright-core';

const [url, path, width, height] = process.argv.slice(2);
const browser = await chromium.launch({executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic']});
const page = await browser.newPage({viewport: {width: +width, height: +height}});
page.on('pageerror', (error) => console.error(String(error)));
await page.goto(url);
await page.waitForFunction(() => window.drawn === window.PICTURE.dashboard.panels.length, null, {timeout: 60_000});
await page.waitForTimeout(1500);
await page.screenshot({path});
await browser.close();
