// The promises of the dashboard, in a real Chromium with the real gateway.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { AXE, DESKTOP, PHONE, close, grave, live, open } from './browser.mjs';
import { Gateway, meter, until, vehicle } from './gateway.mjs';

const HOSTILE = `<img src=x onerror="document.title='owned'">'"</script>\u05d0\u05d1`;

describe('a gateway without keys', () => {
  const gateway = new Gateway(['--alert-interval', '1s']);

  before(async () => {
    await gateway.start();
    // A two-hour session with readings of its meter and vehicle, half of it in the past.
    const minutes = Array.from({ length: 120 }, (_, n) => 120 - n);
    const began = Date.now();
    const together = (readings) => readings.map((reading, n) =>
      ({ ...reading, timestamp: new Date(began - minutes[n] * 60000).toISOString() }));
    await gateway.store('meter', together(minutes.map((m) => meter('M1', 230 + (m % 5)))));
    await gateway.store('vehicle', together(minutes.map((m) => vehicle('V1', 80 - m / 4))));
    await gateway.call('POST', '/v1/sessions', {
      sessionId: 'S1', vehicleId: 'V1', meterId: 'M1', startedAt: new Date(Date.now() - 7260000).toISOString(),
    });
    await gateway.store('vehicle', [vehicle(HOSTILE, 50), vehicle('Silent', 10, 60)]);
  });

  after(() => gateway.remove());

  test('the fleet page shows at a glance what reports and what is silent', async () => {
    const page = await open(gateway, '/');
    await live(page);
    const tile = (label) => page.getByRole('region', { name: label, exact: true });
    await tile('Vehicles').getByText('2 live').waitFor();
    await tile('Vehicles').getByText('1 silent', { exact: true }).waitFor();
    await tile('Readings accepted').getByText('/s stored').waitFor();
    await page.getByRole('region', { name: 'Charging now' }).getByRole('link', { name: 'V1' }).waitFor();
    // 120 × 0.12 kWh in, 120 × 0.1 kWh out.
    await page.getByText('24 h', { exact: true }).click();
    const energy = page.getByRole('region', { name: 'Energy', exact: true });
    await energy.getByText('14.4 kWh', { exact: true }).waitFor();
    await energy.getByText('83.3%').waitFor();
    const worst = page.getByRole('region', { name: 'Largest losses' });
    await worst.getByRole('link', { name: 'V1' }).waitFor();
    await worst.getByLabel('Price of a kilowatt-hour').fill('0.5');
    await worst.getByLabel('Price of a kilowatt-hour').press('Enter');
    await worst.getByText('2.40 kWh · €1.20').waitFor();
    await energy.getByText('€1.20', { exact: true }).waitFor();
    // One percent of what the vehicle received.
    await energy.getByText('€0.07', { exact: true }).waitFor();
    await close(page);
  });

  test('a reading appears within two seconds, without a reload', async () => {
    const page = await open(gateway, '/#/vehicles');
    await live(page);
    await page.getByRole('link', { name: 'V1' }).waitFor();
    // The best of ten attempts, because a busy machine may delay some.
    let best = Infinity;
    for (let charge = 83; charge > 73 && best >= 2000; charge--) {
      const sent = Date.now();
      await gateway.store('vehicle', vehicle('V1', charge));
      await page.getByRole('row').filter({ hasText: 'V1' }).getByText(`${charge}%`).waitFor();
      best = Math.min(best, Date.now() - sent);
    }
    assert.ok(best < 2000, `${best} ms`);
    await close(page);
  });

  test("a vehicle's page shows charge, energy, efficiency and sessions, and follows", async () => {
    const page = await open(gateway, '/#/vehicles');
    await page.getByRole('link', { name: 'V1' }).click();
    await page.getByRole('heading', { level: 1, name: 'V1' }).waitFor();
    assert.equal(await page.title(), 'V1 · Wattgate');
    await page.getByText('14.4 kWh').first().waitFor();
    await page.getByText('Warning').waitFor();
    await page.getByText('by 1 session').waitFor();
    await page.getByRole('img', { name: /Charge from 50.0% to/ }).waitFor();
    await page.getByRole('img', { name: /Efficiency from 83.\d%/ }).waitFor();
    const sessions = page.getByRole('region', { name: 'Charging sessions' });
    await sessions.getByRole('link', { name: 'M1' }).waitFor();
    await gateway.store('vehicle', vehicle('V1', 84.5));
    await page.getByRole('definition').getByText('84.5%').waitFor();
    await sessions.getByRole('link', { name: 'M1' }).click();
    await page.getByRole('heading', { level: 1, name: 'M1' }).waitFor();
    await page.getByRole('img', { name: /Power from 7.20 kW/ }).waitFor();
    await close(page);
  });

  test('an id that contains markup is shown as text everywhere', async () => {
    const page = await open(gateway, '/#/vehicles');
    const link = page.getByRole('link', { name: HOSTILE, exact: true });
    await link.click();
    await page.getByRole('heading', { level: 1, name: HOSTILE, exact: true }).waitFor();
    await page.getByRole('definition').getByText('50.0%').waitFor();
    assert.equal(await page.locator('main img').count(), 0);
    assert.equal(await page.title(), `${HOSTILE} · Wattgate`);
    await close(page);
  });

  test('an alert is counted and listed as it opens, and disappears when its cause has ended', async () => {
    const page = await open(gateway, '/#/alerts');
    await live(page);
    await gateway.store('vehicle', { ...vehicle('Hot', 40), batteryTemp: 71.5 });
    const row = page.getByRole('row').filter({ hasText: 'Hot battery' });
    await row.getByRole('link', { name: 'Hot' }).waitFor();
    await row.getByText('71.5 °C').waitFor();
    await page.getByRole('link', { name: /Alerts \d+ open/ }).waitFor();
    // The fleet page lists the most severe alert first, and the vehicle's page shows it above its figures.
    const other = await open(gateway, '/');
    const first = other.getByRole('region', { name: 'Needs attention' }).getByRole('listitem').first();
    await first.getByText('71.5 °C, limit 55.0 °C').waitFor();
    await first.getByRole('link', { name: 'Hot' }).click();
    await other.getByRole('list', { name: 'Open alerts' }).getByText('Hot battery').waitFor();
    await close(other);
    await gateway.store('vehicle', { ...vehicle('Hot', 40), batteryTemp: 30 });
    await row.waitFor({ state: 'detached' });
    await page.getByText('Closed', { exact: true }).click();
    await row.waitFor();
    await close(page);
  });

  for (const [why, parts, banner] of [
    ['a lag', { lag: { readings: 5, oldestSeconds: 130, reason: 'too long' } },
      'The database is falling behind: 5 readings wait in the log, the oldest for 2 min. The data shown is equally old.'],
    ['queries that fail', { questions: { status: 'down', reason: 'refused' } },
      'Queries do not reach the database (refused). Readings are still accepted and stored. The data shown may be out of date.'],
  ]) {
    test(`the banner names why the gateway is not ready: ${why}`, async () => {
      const page = await open(gateway, '/#/meters');
      const up = { wal: { status: 'ok' }, database: { status: 'up' }, migrations: { status: 'done' }, gap: { readings: 0 } };
      await page.route('**/health', (route) => route.fulfill({
        status: 503, json: { status: 'unready', ...up, lag: { readings: 0, oldestSeconds: 0 }, ...parts },
      }));
      await page.reload();
      await page.getByRole('alert').getByText(banner, { exact: true }).waitFor();
      await close(page, ['503']);
    });
  }

  test('a device without readings is shown as unknown', async () => {
    const page = await open(gateway, '/#/meters/nobody');
    await page.getByText('Unknown').waitFor();
    await page.getByText('No reading of this meter is stored.').waitFor();
    assert.equal(await page.locator('.columns').isVisible(), false);
    await close(page, ['404']);
  });

  test('the dashboard works with the keyboard alone', async () => {
    const page = await open(gateway, '/');
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to content');
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
    await page.getByRole('link', { name: 'Vehicles', exact: true }).focus();
    await page.keyboard.press('Enter');
    // Assistive technology announces the new page's title.
    await page.waitForFunction(() => document.activeElement.tagName === 'H1' && document.activeElement.textContent === 'Vehicles');
    await page.getByRole('button', { name: 'Charge' }).focus();
    await page.keyboard.press('Enter');
    await page.locator('[role=columnheader][aria-sort=descending]').getByText('Charge').waitFor();
    await page.getByLabel('Find a vehicle by id').fill('sile');
    await page.getByText(/^1 of \d$/).waitFor();
    await close(page);
  });

  for (const [scheme, viewport] of [['light', DESKTOP], ['dark', DESKTOP], ['light', PHONE], ['dark', PHONE]]) {
    test(`the page is accessible and nothing is cut off: ${scheme}, ${viewport.width} wide`, async () => {
      // The checker is an injected script, which the page's policy would refuse.
      const page = await open(gateway, '/', { viewport, colorScheme: scheme, bypassCSP: true });
      await page.addScriptTag({ content: AXE });
      const views = ['#/', '#/vehicles', '#/vehicles/V1', '#/meters', '#/meters/M1', '#/alerts'];
      for (const view of [...views, '/docs']) {
        if (view === '/docs') {
          await page.goto(`${gateway.url}/docs`);
          await page.addScriptTag({ content: AXE });
          await page.getByRole('heading', { level: 3 }).first().waitFor();
        } else {
          await page.evaluate((hash) => { location.hash = hash; }, view);
          await page.locator('main h1').waitFor({ state: 'attached' });
          await page.waitForFunction(() => !document.querySelector('main').textContent.includes('Loading'));
        }
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.ok(wide <= 0, `${view} is ${wide} px too wide`);
        assert.deepEqual(await grave(page, view), []);
      }
      await close(page);
    });
  }

  test('the reference describes every endpoint', async () => {
    const page = await open(gateway, '/docs');
    const document = await gateway.call('GET', '/openapi.json');
    const operations = Object.values(document.paths).flatMap((methods) => Object.keys(methods));
    await page.getByRole('heading', { level: 3 }).first().waitFor();
    assert.equal(await page.locator('section.operation').count(), operations.length);
    await close(page);
  });

  test('after a broken stream reconnects, missed changes appear', async () => {
    const page = await open(gateway, '/#/vehicles');
    await live(page);
    await page.getByRole('link', { name: 'V1' }).waitFor();
    await gateway.kill();
    await page.waitForFunction(() => document.getElementById('live').textContent === 'Reconnecting');
    await page.getByRole('alert').getByText(/The gateway cannot be reached. The data shown is from/).waitFor();
    await gateway.start();
    await page.getByRole('alert').waitFor({ state: 'hidden' });
    await gateway.store('vehicle', vehicle('V1', 91));
    await live(page);
    await page.getByRole('row').filter({ hasText: 'V1' }).getByText('91%').waitFor();
    await gateway.store('vehicle', vehicle('V1', 92));
    await page.getByRole('row').filter({ hasText: 'V1' }).getByText('92%').waitFor();
    // The browser logs by itself that no server answered, or that it was not ready yet.
    await close(page, ['net::ERR_', '503']);
  });
});

describe('a gateway with a tariff', () => {
  const gateway = new Gateway(['--tariff', '10', '--tariff-currency', 'CHF']);

  before(async () => {
    await gateway.start();
    // 12 kWh in and 10 kWh out, both reported at the same times, so one percent is 0.12 kWh.
    const began = Date.now();
    const minutes = Array.from({ length: 100 }, (_, n) => new Date(began - (100 - n) * 60000).toISOString());
    await gateway.store('meter', minutes.map((timestamp) => ({ ...meter('V1', 230), timestamp })));
    await gateway.store('vehicle', minutes.map((timestamp) => ({ ...vehicle('V1', 50), timestamp })));
  });

  after(() => gateway.remove());

  for (const [scheme, viewport] of [['light', DESKTOP], ['dark', DESKTOP], ['light', PHONE], ['dark', PHONE]]) {
    test(`what one more percent saves is the first and largest figure: ${scheme}, ${viewport.width} wide`, async () => {
      const page = await open(gateway, '/', { viewport, colorScheme: scheme, bypassCSP: true });
      await page.addScriptTag({ content: AXE });
      await page.getByText('24 h', { exact: true }).click();
      const energy = page.getByRole('region', { name: 'Energy', exact: true });
      const worth = energy.getByRole('definition').filter({ hasText: 'CHF' }).first();
      await energy.getByText('CHF 1.20', { exact: true }).waitFor();
      assert.equal(await worth.innerText(), 'CHF\u00a01.20');
      assert.match(await energy.getByRole('term').first().innerText(), /One more percent saves/);
      const sizes = await energy.locator('dd:not(.small)').evaluateAll((all) =>
        all.map((dd) => Number.parseFloat(getComputedStyle(dd).fontSize)));
      assert.ok(sizes.slice(1).every((size) => size < sizes[0]), String(sizes));
      const { y, height } = await worth.boundingBox();
      assert.ok(y + height <= viewport.height, `it ends at ${y + height} of ${viewport.height}`);
      // The tariff's currency, not one that was chosen here earlier. The page does not ask for a price.
      await energy.getByText('CHF 20.00', { exact: true }).waitFor();
      const ranking = page.getByRole('region', { name: 'Largest losses' });
      await ranking.getByText(/2\.00 kWh · CHF.20\.00/).waitFor();
      assert.equal(await ranking.getByLabel('Price of a kilowatt-hour').isVisible(), false);
      assert.equal(await ranking.getByLabel('Currency').isVisible(), false);
      assert.deepEqual(await grave(page, 'the fleet with a tariff'), []);
      await ranking.getByRole('link', { name: 'V1' }).click();
      await page.getByRole('definition').getByText(/CHF.20\.00/).waitFor();
      await close(page);
    });
  }
});

describe('a gateway whose database is away', () => {
  const gateway = new Gateway(['--database-url', 'postgres://nobody@127.0.0.1:1/none']);
  before(() => gateway.start({ ready: false }));
  after(() => gateway.remove());

  test('the page states that readings are still accepted', async () => {
    await gateway.call('POST', '/v1/ingestion/vehicle', vehicle('V1', 50));
    const page = await open(gateway, '/#/vehicles/V1', { bypassCSP: true });
    await page.getByRole('alert').getByText(/The database is unavailable.*Readings are still accepted: 1 waiting in the log/).waitFor();
    await page.getByText('Not loaded').waitFor();
    await page.getByText(/Temporarily unavailable: the database/).first().waitFor();
    await page.addScriptTag({ content: AXE });
    assert.deepEqual(await grave(page, 'a vehicle that cannot be shown'), []);
    await close(page, ['503']);
  });
});

describe('a gateway with keys', () => {
  const gateway = new Gateway(['--auth', 'keys']);
  before(() => gateway.start());
  after(() => gateway.remove());

  test('the page requests a key once, and explains a wrong one', async () => {
    const key = gateway.key('read,ingest');
    await until(() => gateway.store('vehicle', vehicle('V1', 55), key), 'the key is known');
    const page = await open(gateway, '/');
    const dialog = page.getByRole('dialog', { name: 'API key' });
    await dialog.getByLabel('API key', { exact: true }).fill('wg_wrong');
    await dialog.getByRole('button').click();
    await dialog.getByText('The gateway rejected that key').waitFor();
    await dialog.getByLabel('API key', { exact: true }).fill(key);
    await dialog.getByRole('button').click();
    await live(page);
    await page.getByRole('region', { name: 'Vehicles', exact: true }).getByText('1 live').waitFor();
    // The same tab does not ask for the key again, but another tab does.
    await page.reload();
    await live(page);
    assert.equal(await dialog.isVisible(), false);
    const other = await open(gateway, '/');
    await other.getByRole('dialog', { name: 'API key' }).waitFor();
    await close(other, ['401']);
    await close(page, ['401']);
  });
});

describe('a fleet of 10,000', () => {
  const gateway = new Gateway();
  const DEVICES = 10000;

  before(async () => {
    await gateway.start();
    for (let from = 0; from < DEVICES; from += 2500) {
      const some = Array.from({ length: 2500 }, (_, n) => from + n);
      await gateway.store('vehicle', some.map((n) => vehicle(`VEH-${String(n).padStart(5, '0')}`, n % 101)));
    }
  });

  after(() => gateway.remove());

  test('the fleet page appears at once, and everything else soon', async (t) => {
    const page = await open(gateway, '/');
    const vehicles = page.getByRole('region', { name: 'Vehicles', exact: true });
    await vehicles.getByText('10,000 live').waitFor();
    const all = await page.evaluate(() => performance.now());
    const painted = await page.evaluate(() =>
      performance.getEntriesByName('first-contentful-paint')[0].startTime);
    const { heap, nodes } = await page.evaluate(() => ({
      heap: performance.memory.usedJSHeapSize, nodes: document.querySelectorAll('*').length,
    }));
    t.diagnostic(`first paint after ${painted.toFixed(0)} ms, all counted after ${all.toFixed(0)} ms, `
      + `${nodes} elements, heap ${(heap / 1048576).toFixed(1)} MiB`);
    assert.ok(painted < 2000 && all < 10000, `${painted} ms, ${all} ms`);
    assert.ok(nodes < 1500 && heap < 100 * 1048576, `${nodes} elements, ${heap} bytes`);
    await close(page);
  });

  test('stays smooth: few rows exist, and scrolling and finding are quick', async (t) => {
    const page = await open(gateway, '/');
    const devtools = await page.context().newCDPSession(page);
    await devtools.send('Performance.enable');
    await page.goto('about:blank');
    await page.goto(`${gateway.url}/#/vehicles`);
    await page.getByRole('link', { name: 'VEH-00000' }).waitFor();
    const first = await page.evaluate(() => performance.now());
    await page.getByText('10,000', { exact: true }).waitFor();
    const all = await page.evaluate(() => performance.now());
    assert.ok(await page.locator('.rows-space .row').count() < 80);
    const longest = await page.evaluate(async () => {
      const table = document.querySelector('.devices');
      let worst = 0;
      for (let step = 0; step < 60; step += 1) {
        const began = performance.now();
        table.scrollTop = (table.scrollHeight / 60) * step;
        await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
        worst = Math.max(worst, performance.now() - began);
      }
      return worst;
    });
    await page.getByLabel('Find a vehicle by id').fill('09999');
    await page.getByRole('link', { name: 'VEH-09999' }).waitFor();
    const heap = await page.evaluate(() => performance.memory.usedJSHeapSize);
    const { metrics } = await devtools.send('Performance.getMetrics');
    const script = metrics.find((m) => m.name === 'ScriptDuration').value;
    t.diagnostic(`first row after ${first.toFixed(0)} ms, all after ${all.toFixed(0)} ms, worst frame while scrolling `
      + `${longest.toFixed(0)} ms, script ${script.toFixed(2)} s, heap ${(heap / 1048576).toFixed(1)} MiB`);
    assert.ok(longest < 500, `${longest} ms for a step of scrolling`);
    assert.ok(heap < 100 * 1048576, `${heap} bytes`);
    await close(page);
  });
});
