// Chromium, and pages in it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before } from 'node:test';

import { chromium } from 'playwright-core';

import { PATIENCE_MS } from './gateway.mjs';

export const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
export const DESKTOP = { width: 1440, height: 900 };
export const PHONE = { width: 390, height: 844 };

let browser;

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--enable-precise-memory-info'],
  });
});

after(() => browser?.close());

/** A new browser context, like a newly installed browser. */
export async function fresh(options = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  return context;
}

/** A tab that records its errors. */
export async function tab(context) {
  const page = await context.newPage();
  page.errors = [];
  page.on('console', (message) => message.type() === 'error' && page.errors.push(message.text()));
  page.on('pageerror', (error) => page.errors.push(String(error)));
  return page;
}

/** A page that records its errors. A test fails if there are errors that it does not expect. */
export async function open(gateway, path, options = {}) {
  const page = await tab(await fresh(options));
  await page.goto(gateway.url + path);
  return page;
}

export async function close(page, allowed = []) {
  const unexpected = page.errors.filter((error) => !allowed.some((known) => error.includes(known)));
  assert.deepEqual(unexpected, []);
  await page.context().close();
}

/** The serious findings of the accessibility checker, which the page must have loaded already. */
export async function grave(page, view) {
  const { violations } = await page.evaluate(() => axe.run());
  return violations.filter((v) => ['serious', 'critical'].includes(v.impact))
    .map((v) => `${view} ${v.id}: ${v.nodes.map((n) => `${n.target} ${n.failureSummary}`).slice(0, 3).join('; ')}`);
}

export const live = (page) => page.waitForFunction(() => document.getElementById('live').textContent === 'Live');
