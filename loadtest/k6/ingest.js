// Ingestion load with k6: `k6 run loadtest/k6/ingest.js`.
//
// Every request has new (device, time) pairs, so the gateway stores each reading and sees no
// repeats. k6 uses more CPU than the gateway, so use `wattgate-loadtest run` to find the gateway's
// limit, and this for scenarios and if you know k6.
//
// At the end it reports the same as `wattgate-loadtest run`: responses, acknowledged, rejected and
// unknown readings, and the same latency quantiles. In an open loop k6 counts latency from the time of
// sending. Requests that it cannot send in time are dropped, and that fails the run.
//
// Environment (`-e NAME=value`):
//   URL       http://127.0.0.1:3000
//   STREAM    meter, vehicle or mixed            (meter)
//   RATE      requests a second, an open loop    (50)
//   BATCH     readings in a request              (100)
//   DEVICES   devices of each stream             (1000)
//   DURATION  how long                           (30s)
//   VUS       the most virtual users             (50)
//   KEY       sent as Authorization: Bearer      (none)
//   ACK       buffered, durable or committed     (the gateway's default)

import http from 'k6/http';
import exec from 'k6/execution';
import { check } from 'k6';
import { Counter } from 'k6/metrics';

const url = __ENV.URL || 'http://127.0.0.1:3000';
const stream = __ENV.STREAM || 'meter';
const rate = Number(__ENV.RATE || 50);
const batch = Number(__ENV.BATCH || 100);
const devices = Number(__ENV.DEVICES || 1000);
const query = __ENV.ACK ? `?ack=${__ENV.ACK}` : '';

const accepted = new Counter('readings_accepted');
const refused = new Counter('readings_refused');
// Answered with 5xx, or not at all: they may be stored.
const unknown = new Counter('readings_unknown');

export const options = {
  scenarios: {
    ingest: {
      executor: 'constant-arrival-rate',
      rate: rate,
      timeUnit: '1s',
      duration: __ENV.DURATION || '30s',
      preAllocatedVUs: Math.min(10, Number(__ENV.VUS || 50)),
      maxVUs: Number(__ENV.VUS || 50),
    },
  },
  summaryTrendStats: ['med', 'p(90)', 'p(99)', 'p(99.9)', 'max'],
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    http_req_duration: ['p(99)<250'],
    dropped_iterations: ['count==0'],
  },
};

// The first reading's time: a day ago, with this run's own milliseconds, so that two runs share no
// time; seconds are counted on from there.
export function setup() {
  return { startMs: Date.now() - 24 * 3600 * 1000 };
}

function reading(kind, device, timestamp) {
  const id = String(device).padStart(6, '0');
  const kwh = Math.round(Math.random() * 100000) / 1e6;
  if (kind === 'meter') {
    return `{"meterId":"K6-M-${id}","kwhConsumedAc":${kwh},"voltage":230.5,"timestamp":"${timestamp}"}`;
  }
  return `{"vehicleId":"K6-V-${id}","soc":55.5,"kwhDeliveredDc":${kwh},"batteryTemp":31.5,"timestamp":"${timestamp}"}`;
}

export default function (data) {
  // Unique over all virtual users: the request's number decides its devices and times.
  const number = exec.scenario.iterationInTest;
  const kind = stream === 'mixed' ? (number % 2 === 0 ? 'meter' : 'vehicle') : stream;
  const lines = [];
  for (let i = 0; i < batch; i++) {
    const position = number * batch + i;
    const at = data.startMs + Math.floor(position / devices) * 1000;
    lines.push(reading(kind, position % devices, new Date(at).toISOString()));
  }
  const headers = { 'Content-Type': 'application/x-ndjson' };
  if (__ENV.KEY) {
    headers.Authorization = `Bearer ${__ENV.KEY}`;
  }
  const answer = http.post(`${url}/v1/ingestion/${kind}${query}`, lines.join('\n'), {
    headers: headers,
    tags: { name: `POST /v1/ingestion/${kind}` },
  });
  const taken = answer.status === 202 || answer.status === 201 ? answer.json('accepted') : 0;
  accepted.add(taken);
  if (answer.status === 0 || answer.status >= 500) {
    unknown.add(batch);
  } else {
    refused.add(batch - taken);
  }
  check(answer, {
    'taken (201 or 202)': (r) => r.status === 202 || r.status === 201,
    'every reading accepted': () => taken === batch,
  });
}

export function handleSummary(data) {
  const count = (name) => (data.metrics[name] ? data.metrics[name].values.count : 0);
  const ms = (quantile) => data.metrics.http_req_duration.values[quantile].toFixed(3);
  const seconds = data.state.testRunDurationMs / 1000;
  const rate = (n) => (n / seconds).toFixed(0);
  const answers = count('http_reqs');
  const taken = count('readings_accepted');
  const failed = Object.entries(data.metrics)
    .filter(([, metric]) => Object.values(metric.thresholds || {}).some((threshold) => !threshold.ok))
    .map(([name]) => name);
  const lines = [
    `${answers} answers in ${seconds.toFixed(3)} s (${rate(answers)}/s), ${taken} readings acknowledged ` +
      `(${rate(taken)}/s), ${count('readings_refused')} refused, ${count('readings_unknown')} unknown`,
    `latency ms: p50 ${ms('med')}, p90 ${ms('p(90)')}, p99 ${ms('p(99)')}, p99.9 ${ms('p(99.9)')}, max ${ms('max')}`,
  ];
  if (failed.length > 0) {
    lines.push(`thresholds not kept: ${failed.join(', ')}`);
  }
  return { stdout: lines.join('\n') + '\n' };
}
