// What operators do on the dashboard: they acknowledge and mute, and find what others did.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { AXE, DESKTOP, PHONE, close, grave, live, open } from './browser.mjs';
import { Gateway, until, vehicle } from './gateway.mjs';

describe('an alert', () => {
  const gateway = new Gateway(['--alert-interval', '0s']);
  const open_alerts = async (query = '') => (await gateway.call('GET', `/v1/alerts?state=open${query}`)).items;

  before(async () => {
    await gateway.start();
    await gateway.store('vehicle', ['Hot 1', 'Hot 2', 'Cool'].map((id) => vehicle(id, 40)));
    gateway.sql(`
      insert into alerts (kind, stream, device_id, opened_at, updated_at, value, bound, details)
      select 'battery_temperature', 'vehicle', id, now() - interval '1 hour', now(), 71, 55, '{}'
      from vehicles where external_id like 'Hot%'`);
  });

  after(() => gateway.remove());

  test('is acknowledged and muted with the keyboard alone', async () => {
    const page = await open(gateway, '/#/alerts');
    const row = page.getByRole('row').filter({ hasText: 'Hot 1' });
    const focused = (name) => page.waitForFunction((words) => document.activeElement.getAttribute('aria-label') === words, name);
    await row.getByRole('button', { name: 'Acknowledge: Hot battery, Hot 1' }).focus();
    await page.keyboard.press('Enter');
    const dialog = page.getByRole('dialog');
    await dialog.waitFor();
    // Escape gives up, and returns to the button.
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    await focused('Acknowledge: Hot battery, Hot 1');
    await page.keyboard.press('Enter');
    await dialog.getByLabel('Note (optional)').focus();
    await page.keyboard.type('On my way');
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    await row.getByText(/^Acknowledged .*: On my way$/).waitFor();
    await focused('Withdraw: Hot battery, Hot 1');
    assert.equal((await open_alerts('&acknowledged=true')).length, 1);

    await row.getByRole('button', { name: 'Mute: Hot battery, Hot 1' }).focus();
    await page.keyboard.press('Enter');
    await dialog.getByLabel('Alerts').selectOption('All alerts of the device');
    await dialog.getByRole('button', { name: 'Mute' }).focus();
    await page.keyboard.press('Enter');
    await row.getByText(/^Muted until /).waitFor();
    await focused('Unmute: Hot battery, Hot 1');
    const panel = page.getByRole('region', { name: 'Muted devices' });
    await panel.getByText('All alerts').waitFor();
    // A mute counts as what it is: the alert is listed, and the other one too.
    await page.locator('#main').getByText('2 open', { exact: true }).waitFor();

    await page.keyboard.press('Enter');
    await row.getByText(/^Muted until /).waitFor({ state: 'detached' });
    await panel.waitFor({ state: 'hidden' });
    await row.getByRole('button', { name: 'Withdraw: Hot battery, Hot 1' }).focus();
    await page.keyboard.press('Enter');
    await focused('Acknowledge: Hot battery, Hot 1');
    assert.equal((await open_alerts('&acknowledged=true')).length, 0);
    await close(page);
  });

  test('shows in another tab what was done, and the fleet page lists it last', async () => {
    const other = await open(gateway, '/');
    await live(other);
    const fleet = other.getByRole('region', { name: 'Needs attention' });
    await fleet.getByRole('listitem').nth(1).waitFor();
    const [first] = await open_alerts();
    await gateway.call('POST', `/v1/alerts/${first.alertId}/acknowledgement`, { note: 'Seen' });
    await fleet.getByRole('listitem').nth(1).getByText(/: Seen$/).waitFor();
    await fleet.getByRole('listitem').nth(1).getByRole('link', { name: first.vehicleId }).waitFor();
    await fetch(`${gateway.url}/v1/alerts/${first.alertId}/acknowledgement`, { method: 'DELETE' });
    await fleet.getByText(/: Seen$/).waitFor({ state: 'detached' });
    await close(other);
  });

  test('is found by the beginning of its device\'s id', async () => {
    const page = await open(gateway, '/#/alerts');
    await page.locator('#main').getByText('2 open', { exact: true }).waitFor();
    await page.getByLabel('Find alerts of devices whose id begins with').fill('Hot 2');
    await page.locator('#main').getByText('1 open', { exact: true }).waitFor();
    await page.getByRole('row').filter({ hasText: 'Hot 2' }).waitFor();
    await page.getByLabel('Find alerts of devices whose id begins with').fill('ot');
    await page.getByText('No alert matches the filter.').waitFor();
    await close(page);
  });

  test("a device is muted on its page, before it has an alert", async () => {
    const page = await open(gateway, '/#/vehicles/Cool');
    await page.getByRole('button', { name: 'Mute all alerts' }).click();
    const dialog = page.getByRole('dialog', { name: 'Mute all alerts of the device' });
    await dialog.getByLabel('For').selectOption('7 days');
    await dialog.getByLabel('Note (optional)').fill('In the workshop');
    await dialog.getByRole('button', { name: 'Mute' }).click();
    await page.getByText(/^Muted until .*: In the workshop/).waitFor();
    const { items } = await gateway.call('GET', '/v1/alerts/mutes?vehicleId=Cool');
    const days = (Date.parse(items[0].until) - Date.now()) / 86400000;
    assert.ok(days > 6.9 && days < 7.1, `${days} days`);
    await page.getByRole('button', { name: 'Unmute all alerts' }).click();
    await page.getByRole('button', { name: 'Mute all alerts', exact: true }).waitFor();
    await until(async () => (await gateway.call('GET', '/v1/alerts/mutes')).items.length === 0, 'it is not muted');
    await close(page);
  });

  for (const view of ['#/', '#/alerts', '#/vehicles/Cool', '#/meters']) {
    test(`costs one request when it opens: ${view}`, async () => {
      const page = await open(gateway, `/${view}`);
      await live(page);
      const badge = page.locator('#alerts-open');
      await badge.waitFor();
      const before = await badge.innerText();
      let asked = 0;
      const began = Date.now();
      page.on('request', (request) => {
        if (/\/v1\/alerts\?/.test(request.url())) asked += 1;
      });
      for (let round = 0; round < 4; round += 1) {
        gateway.sql(`
          insert into alerts (kind, stream, device_id, opened_at, updated_at, value, bound, details)
          select 'silent', 'vehicle', id, now(), now(), 71, 55, '{}' from vehicles where external_id = 'Cool'`);
        await page.waitForFunction((text) => document.getElementById('alerts-open').innerText !== text, before);
        gateway.sql("update alerts set closed_at = now() where kind = 'silent' and closed_at is null");
        await page.waitForFunction((text) => document.getElementById('alerts-open').innerText === text, before);
      }
      // One for each of eight events, one every half minute, and one that may have been under way.
      const most = 9 + Math.ceil((Date.now() - began) / 30000);
      assert.ok(asked >= 8 && asked <= most, `${asked} requests, at most ${most}`);
      await close(page);
    });
  }

  for (const [scheme, viewport] of [['light', DESKTOP], ['dark', PHONE]]) {
    test(`the marks and dialogs are accessible: ${scheme}, ${viewport.width} wide`, async () => {
      const [first] = await open_alerts();
      await gateway.call('POST', `/v1/alerts/${first.alertId}/acknowledgement`, { note: 'A note that is as long as notes on a phone may be' });
      await gateway.call('PUT', `/v1/vehicles/${encodeURIComponent(first.vehicleId)}/mute`, { until: new Date(Date.now() + 3600000).toISOString() });
      const page = await open(gateway, '/#/alerts', { viewport, colorScheme: scheme, bypassCSP: true });
      await page.addScriptTag({ content: AXE });
      await page.getByRole('row').getByText(/^Muted until/).waitFor();
      const wide = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(await wide() <= 0, `${await wide()} px too wide`);
      assert.deepEqual(await grave(page, 'alerts'), []);
      await page.getByRole('button', { name: /^Mute: / }).first().click();
      await page.getByRole('dialog').waitFor();
      assert.deepEqual(await grave(page, 'the dialog'), []);
      await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
      await page.goto(`${gateway.url}/#/vehicles/${encodeURIComponent(first.vehicleId)}`);
      await page.getByRole('button', { name: 'Unmute all alerts' }).waitFor();
      assert.deepEqual(await grave(page, 'the device'), []);
      assert.ok(await wide() <= 0, `${await wide()} px too wide`);
      await close(page);
    });
  }
});

describe('a key that may only read', () => {
  const gateway = new Gateway(['--auth', 'keys', '--alert-interval', '0s']);
  before(() => gateway.start());
  after(() => gateway.remove());

  test('gets the reason why it cannot acknowledge', async () => {
    const key = gateway.key('read,ingest');
    await until(() => gateway.store('vehicle', vehicle('Hot', 55), key), 'the key is known');
    gateway.sql(`
      insert into alerts (kind, stream, device_id, opened_at, updated_at, value, bound, details)
      select 'battery_temperature', 'vehicle', id, now(), now(), 71, 55, '{}' from vehicles`);
    const page = await open(gateway, '/#/alerts');
    const signIn = page.getByRole('dialog', { name: 'API key' });
    await signIn.getByLabel('API key', { exact: true }).fill(key);
    await signIn.getByRole('button').click();
    await page.getByRole('button', { name: /^Acknowledge: / }).click();
    const dialog = page.getByRole('dialog', { name: 'Acknowledge the alert' });
    await dialog.getByRole('button', { name: 'Acknowledge' }).click();
    await dialog.getByRole('alert').getByText('Not allowed: this request needs the right to admin.').waitFor();
    await page.keyboard.press('Escape');
    await close(page, ['401', '403']);
  });
});
