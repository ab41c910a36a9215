// Ordinary situations at sizes that once broke the dashboard: many alerts, tabs and sessions, and infrequent
// readings.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { PHONE, close, fresh, live, open, tab } from './browser.mjs';
import { Gateway, meter, until, vehicle } from './gateway.mjs';

describe('1,100 alerts', () => {
  const gateway = new Gateway(['--alert-interval', '0s']);

  before(async () => {
    await gateway.start();
    await gateway.store('vehicle', vehicle('Hot', 40));
    gateway.sql(`
      insert into alerts (kind, stream, device_id, opened_at, updated_at, value, bound, details)
      select 'battery_temperature', 'vehicle', id, now() - interval '1 hour', now(), 71, 55, '{}'
      from vehicles where external_id = 'Hot';
      insert into meters (external_id) select 'M' || n from generate_series(1, 1100) as n;
      insert into alerts (kind, stream, device_id, opened_at, updated_at, value, bound, details)
      select 'silent', 'meter', id, now(), now(), 3600, 1800, '{}' from meters`);
  });

  after(() => gateway.remove());

  test('a critical alert comes first, however many newer ones there are', async () => {
    const page = await open(gateway, '/#/alerts');
    const first = page.getByRole('row').nth(1);
    await first.getByText('Hot battery').waitFor();
    await first.getByRole('link', { name: 'Hot' }).waitFor();
    await page.getByText('1,000+ open', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Load more' }).click();
    await page.getByText('1,101 open', { exact: true }).waitFor();
    await page.getByLabel('Kind of alert').selectOption('battery_temperature');
    await page.getByText('1 open', { exact: true }).waitFor();
    await page.goto(`${gateway.url}/#/`);
    const fleet = page.getByRole('region', { name: 'Needs attention' });
    await fleet.getByRole('listitem').first().getByText('Hot battery').waitFor();
    await close(page);
  });
});

describe('eight tabs', () => {
  const gateway = new Gateway();

  before(async () => {
    await gateway.start();
    await gateway.store('vehicle', vehicle('V1', 50));
  });

  after(() => gateway.remove());

  /** Shows or hides a tab. Chromium does not tell tabs under test that they are hidden. */
  const show = (page, visible) => page.evaluate((state) => {
    Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => state });
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => state === 'hidden' });
    document.dispatchEvent(new Event('visibilitychange'));
  }, visible ? 'visible' : 'hidden');

  test('the last tab is as live as the first, and a returning tab shows what it missed', async () => {
    const context = await fresh();
    // Records every banner that is ever shown.
    await context.addInitScript(() => {
      window.banners = [];
      document.addEventListener('DOMContentLoaded', () => {
        const banner = document.getElementById('banner');
        new MutationObserver(() => banner.hidden || window.banners.push(banner.textContent))
          .observe(banner, { attributes: true, childList: true, characterData: true, subtree: true });
      });
    });
    const tabs = [];
    for (let n = 0; n < 8; n += 1) {
      const page = await tab(context);
      await page.goto(`${gateway.url}/#/vehicles`);
      await live(page);
      await page.getByRole('row').filter({ hasText: 'V1' }).getByText('50%').waitFor();
      if (n < 7) await show(page, false);
      tabs.push(page);
    }
    const [first, last] = [tabs[0], tabs[7]];
    assert.equal(await first.locator('#live').innerText(), 'Paused');
    await gateway.store('vehicle', vehicle('V1', 63));
    await last.getByRole('row').filter({ hasText: 'V1' }).getByText('63%').waitFor();
    await show(last, false);
    await show(first, true);
    await live(first);
    await first.getByRole('row').filter({ hasText: 'V1' }).getByText('63%').waitFor();
    await gateway.store('vehicle', vehicle('V1', 64));
    await first.getByRole('row').filter({ hasText: 'V1' }).getByText('64%').waitFor();
    for (const page of tabs) {
      assert.deepEqual(await page.evaluate(() => window.banners), []);
      assert.deepEqual(page.errors, []);
    }
    await context.close();
  });

  test('a slow request does not count as an unreachable gateway', async () => {
    const page = await tab(await fresh());
    let asked = 0;
    // Never answered, like a request that waits for a connection.
    await page.route('**/health', () => {
      asked += 1;
    });
    await page.goto(`${gateway.url}/`);
    await page.waitForFunction(() => document.getElementById('banner').textContent.includes('The gateway has not answered for'));
    assert.ok(asked >= 3, `after ${asked} requests`);
    assert.equal(await page.locator('#health').innerText(), 'No answer');
    await page.unroute('**/health');
    await page.getByText('Ready', { exact: true }).waitFor();
    await page.locator('#banner').waitFor({ state: 'hidden' });
    await close(page);
  });
});

describe('devices that report every 15 minutes', () => {
  const gateway = new Gateway(['--alert-interval', '0s']);

  before(async () => {
    await gateway.start();
    const quarters = Array.from({ length: 90 }, (_, n) => 15 * (90 - n));
    await gateway.store('meter', quarters.map((ago) => meter('Seldom', 230, ago, 1.5)));
    // Two isolated readings after some that are close together.
    const ago = [...Array.from({ length: 12 }, (_, n) => 1300 - n), 900, 500];
    await gateway.store('meter', ago.map((minutes) => meter('Gaps', 230, minutes, 0.1)));
  });

  after(() => gateway.remove());

  /** How many pixels in the right half of a chart have the colour of its line. */
  const drawn = (page, label) => page.getByRole('img', { name: new RegExp(`^${label}`) }).locator('canvas').evaluate((canvas) => {
    const half = Math.floor(canvas.width / 2);
    const { data } = canvas.getContext('2d').getImageData(half, 0, half, canvas.height);
    let found = 0;
    for (let at = 0; at < data.length; at += 4) {
      const [r, g, b, a] = data.subarray(at, at + 4);
      if (a > 200 && Math.max(r, g, b) - Math.min(r, g, b) > 60) found += 1;
    }
    return found;
  });

  test('their power counts over their own interval, and their line has no gaps', async () => {
    const page = await open(gateway, '/#/meters/Seldom');
    await page.getByRole('img', { name: /^Power\. Power from 6\.00 kW to 6\.00 kW, last 6\.00 kW/ }).waitFor();
    await page.getByRole('definition').getByText('6.00 kW', { exact: true }).waitFor();
    // For this device, 15 minutes without a reading is not silence.
    await page.locator('.list-head').getByText('Live', { exact: true }).waitFor();
    await until(async () => await drawn(page, 'Voltage') > 300, 'the line is drawn');
    // Dragging over a part of the chart zooms in, and a button resets the zoom.
    const chart = page.getByRole('img', { name: /^Voltage/ });
    const whole = page.getByRole('button', { name: 'Whole period' });
    assert.equal(await whole.isVisible(), false);
    const { x, y, width, height } = await chart.locator('.u-over').boundingBox();
    await page.mouse.move(x + width * 0.8, y + height / 2);
    await page.mouse.down();
    await page.mouse.move(x + width * 0.9, y + height / 2, { steps: 5 });
    await page.mouse.up();
    await whole.waitFor();
    await whole.click();
    await whole.waitFor({ state: 'hidden' });
    await close(page);
  });

  test('the list and the fleet count them as live, with their power', async () => {
    const page = await open(gateway, '/#/meters');
    const row = (id) => page.getByRole('row').filter({ hasText: id });
    await row('Seldom').getByText('6.0 kW', { exact: true }).waitFor();
    assert.equal(await row('Seldom').getByText('silent').count(), 0);
    await row('Gaps').getByText('silent').waitFor();
    // The power before it fell silent is not its present power.
    await row('Gaps').getByText('–', { exact: true }).waitFor();
    await page.getByText('Live', { exact: true }).last().click();
    await page.getByText('1 of 2', { exact: true }).waitFor();
    await page.goto(`${gateway.url}/#/`);
    await page.getByRole('region', { name: 'Meters', exact: true }).getByText('1 silent', { exact: true }).waitFor();
    await close(page);
  });

  test('a reading without neighbours has a marker', async () => {
    const page = await open(gateway, '/#/meters/Gaps');
    await page.getByRole('img', { name: /^Voltage/ }).waitFor();
    await until(async () => {
      const pixels = await drawn(page, 'Voltage');
      return pixels > 20 && pixels < 300;
    }, 'the point is drawn');
    await close(page);
  });
});

describe('5,100 sessions', () => {
  const gateway = new Gateway(['--alert-interval', '0s', '--tariff', '0.30', '--tariff-currency', 'EUR']);

  before(async () => {
    await gateway.start();
    // An hour at 6 kW, during the newest session.
    const began = Date.now() - 70 * 60000;
    const at = (minute) => new Date(began + minute * 60000).toISOString();
    const minutes = Array.from({ length: 61 }, (_, n) => n);
    await gateway.store('meter', minutes.map((n) => ({ ...meter('Busy', 230, 0, 0.1), timestamp: at(n) })));
    await gateway.store('vehicle', minutes.map((n) => ({ ...vehicle('=Newest', 50, 0, 0.09), timestamp: at(n) })));
    gateway.sql(`
      insert into vehicles (external_id) select 'V' || n from generate_series(1, 5099) as n;
      insert into session_names (external_id) select 'Z' || n from generate_series(1, 5099) as n;
      insert into charging_sessions (session_id, vehicle_id, meter_id, started_at, ended_at)
      select s.id, v.id, m.id, t.at, t.at + interval '1 minute'
      from generate_series(1, 5099) as n
      inner join session_names as s on s.external_id = 'Z' || n
      inner join vehicles as v on v.external_id = 'V' || n
      inner join meters as m on m.external_id = 'Busy'
      cross join lateral (select now() - interval '23 hours' - n * interval '90 seconds' as at) as t`);
    // Its id sorts last by bytes.
    await gateway.call('POST', '/v1/sessions', {
      sessionId: 'zzz', vehicleId: '=Newest', meterId: 'Busy',
      startedAt: at(0), endedAt: at(60),
    });
  });

  after(() => gateway.remove());

  for (const viewport of [{ width: 1280, height: 900 }, PHONE]) {
    test(`the newest come first, with their energy: ${viewport.width} wide`, async () => {
      const page = await open(gateway, '/', { viewport });
      await page.getByRole('navigation').getByRole('link', { name: 'Sessions' }).click();
      const row = page.getByRole('row').nth(1);
      await row.getByRole('link', { name: '=Newest' }).waitFor();
      await row.getByText('6.00 → 5.40').waitFor();
      if (viewport.width > 640) {
        await row.getByText('90.0%').waitFor();
        await row.getByText('€1.80').waitFor();
        assert.equal(await row.getByText('6.0', { exact: true }).count(), 2, 'average and peak, kW');
      }
      // A page has 50 rows, or as many as could be computed in three seconds.
      const shown = () => page.getByRole('table').getByRole('row').count();
      const first = await shown();
      assert.ok(first > 1 && first <= 51, `${first} rows`);
      await page.getByRole('button', { name: 'Load more' }).click();
      await until(async () => await shown() > first, 'there are more');
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(wide <= 0, `${wide} px too wide`);
      await close(page);
    });
  }

  test('a busy meter shows its newest sessions', async () => {
    const page = await open(gateway, '/#/meters/Busy');
    const sessions = page.getByRole('region', { name: 'Charging sessions' });
    const row = sessions.getByRole('row').nth(1);
    await row.getByRole('link', { name: '=Newest' }).waitFor();
    await row.getByText('90.0%').waitFor();
    await page.getByText('7 days', { exact: true }).click();
    await sessions.getByText('more than 5,000 in this period').waitFor();
    await row.getByRole('link', { name: '=Newest' }).waitFor();
    await close(page);
  });

  test('the sessions of a window can be saved as CSV', async () => {
    const page = await open(gateway, '/#/sessions');
    await page.getByText('24 h', { exact: true }).click();
    await page.getByRole('row').nth(1).getByRole('link', { name: '=Newest' }).waitFor();
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download CSV' }).click()]);
    assert.match(download.suggestedFilename(), /^sessions-last-1-days-to-\d{4}-\d\d-\d\dT\d{4}Z\.csv$/);
    const chunks = [];
    for await (const chunk of await download.createReadStream()) chunks.push(chunk);
    const lines = Buffer.concat(chunks).toString().trimEnd().split('\r\n');
    assert.match(lines[0], /^sessionId,vehicleId,meterId,startedAt,endedAt,totalEnergyConsumedAc,/);
    // No spreadsheet may interpret an id as a formula.
    assert.match(lines[1], /^zzz,'=Newest,Busy,.*,6,5\.4,5\.4,90,good,6,6,1\.8,0\.18,EUR$/);
    // An hour of sessions that start 90 seconds apart.
    assert.ok(lines.length > 35 && lines.length <= 42, `${lines.length} lines`);
    await close(page);
  });

  test('a session that starts while its device is shown appears by itself', async () => {
    await gateway.store('meter', meter('Quiet', 230));
    const page = await tab(await fresh());
    await page.clock.install();
    await page.goto(`${gateway.url}/#/meters/Quiet`);
    const sessions = page.getByRole('region', { name: 'Charging sessions' });
    await sessions.getByText('No sessions in this period.').waitFor();
    await gateway.call('POST', '/v1/sessions', { vehicleId: 'Late', meterId: 'Quiet', startedAt: new Date().toISOString() });
    // The list is loaded every half minute.
    await page.clock.fastForward(31000);
    await sessions.getByRole('link', { name: 'Late' }).waitFor();
    await close(page);
  });
});

describe('open sessions', () => {
  const gateway = new Gateway(['--alert-interval', '0s']);
  const HOUR = 60;

  before(async () => {
    await gateway.start();
    // As devices do: one reading after another. One vehicle has been full for three hours.
    for (const [ago, kwh] of [[3 * HOUR + 1, 0.12], [3 * HOUR, 0.12], [1.5, 0], [0.5, 0]]) {
      await gateway.store('meter', [meter('Full', 230, ago, kwh)]);
    }
    for (const ago of [1.5, 0.5]) {
      await gateway.store('meter', [meter('Slow', 230, ago, 0.12), meter('Fast', 230, ago, 0.2)]);
    }
    for (const [id, hours] of [['Full', 5], ['Slow', 2], ['Fast', 1]]) {
      await gateway.call('POST', '/v1/sessions', {
        vehicleId: `Car ${id}`, meterId: id, startedAt: new Date(Date.now() - hours * 3600000).toISOString(),
      });
    }
  });

  after(() => gateway.remove());

  for (const viewport of [{ width: 1280, height: 900 }, PHONE]) {
    test(`what charges and what is plugged in idle are two figures: ${viewport.width} wide`, async () => {
      const page = await open(gateway, '/', { viewport });
      const tile = (label) => page.getByRole('region', { name: label, exact: true });
      await tile('Power now').getByText('19.2 kW').waitFor();
      await tile('Power now').getByText('at 2 of 3 meters').waitFor();
      await tile('Charging').getByText('2 vehicles').waitFor();
      await tile('Charging').getByText('1 plugged in idle').waitFor();
      const now = tile('Charging now');
      await now.getByText('2 charging · 1 idle').waitFor();
      const rows = now.getByRole('row');
      await rows.nth(1).getByText('12.0 kW').waitFor();
      await rows.nth(1).getByRole('link', { name: 'Car Fast' }).waitFor();
      await rows.nth(2).getByText('7.2 kW').waitFor();
      await rows.nth(3).getByText('idle', { exact: true }).waitFor();
      // What is happening now comes first, the gateway's own figures last.
      const tops = await page.locator('.tile').evaluateAll((all) => all.map((tile) => [tile.getAttribute('aria-label'), tile.getBoundingClientRect().top]));
      const top = Object.fromEntries(tops);
      assert.ok(top['Power now'] <= Math.min(...Object.values(top)), JSON.stringify(top));
      assert.ok(top['Readings accepted'] > top.Meters && top['Write lag'] > top.Meters, JSON.stringify(top));
      await close(page);
    });
  }
});
