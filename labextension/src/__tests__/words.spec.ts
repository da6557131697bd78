import { describe, expect, test } from 'vitest';

import { IJob } from '../tokens';
import { bytes, clock, coreHours, counted, duration, jobState, lastKnown, moment, summary } from '../words';
import { anAnswer } from './server';

test.each([
  [-5, '0 s'],
  [0, '0 s'],
  [99.9, '99 s'],
  [100, '1 min'],
  [59 * 60 + 59, '59 min'],
  [3600, '1 h 00 min'],
  [2 * 3600 - 1, '1 h 59 min'],
  [47 * 3600 + 59 * 60, '47 h 59 min'],
  [48 * 3600, '2 d 00 h'],
  [51 * 3600, '2 d 03 h']
])('%d seconds take %s', (seconds, words) => {
  expect(duration(seconds)).toBe(words);
});

test.each([
  [-3, '0 s'],
  [48.7, '48 s'],
  [119, '119 s'],
  [120, '0:02'],
  [43 * 60 + 59, '0:43'],
  [12 * 3600 + 5 * 60, '12:05'],
  [100 * 3600, '100:00']
])('%d seconds on a clock are %s', (seconds, words) => {
  expect(clock(seconds)).toBe(words);
});

test('a moment has its day only if that is not today', () => {
  const at = (day: number, hour: number, minute: number): number =>
    new Date(2026, 10, day, hour, minute).getTime() / 1000;
  expect(moment(at(22, 4, 5), at(22, 23, 59))).toBe('04:05');
  expect(moment(at(22, 14, 5), at(21, 23, 59))).toBe('Sun 22 Nov 14:05');
});

test.each([
  [512, '0.5 KiB'],
  [512 * 2 ** 20, '512 MiB'],
  [1.5 * 2 ** 30, '1.5 GiB'],
  [2 * 2 ** 30, '2 GiB'],
  [2 * 2 ** 30 + 1, '2 GiB'],
  [1023 * 2 ** 30, '1023 GiB'],
  [2 ** 40, '1 TiB'],
  [4096 * 2 ** 40, '4096 TiB']
])('%d bytes are %s', (size, words) => {
  expect(bytes(size)).toBe(words);
});

test('one is singular', () => {
  expect([0, 1, 2].map(number => counted(number, 'worker'))).toEqual(['0 workers', '1 worker', '2 workers']);
});

test.each([
  [0, '0.0'],
  [0.05, '0.05'],
  [0.1, '0.1'],
  [3.44, '3.4'],
  [12.4, '12'],
  [98765, '98765']
])('%d core-hours are %s', (hours, words) => {
  expect(coreHours(hours)).toBe(words);
});

test('what is old says how old', () => {
  expect(lastKnown(40.5)).toBe('last known 40 s ago');
});

describe('a job’s state', () => {
  const job = (changes: Partial<IJob>): IJob => ({ ...anAnswer().session!.jobs[0], workers: 4, joined: 0, ...changes });

  test.each([
    [{ state: 'pending' }, 'queued'],
    [{ state: 'held' }, 'held'],
    [{ state: 'running' }, 'running'],
    [{ state: 'running', joined: 2 }, '2 of 4 joined'],
    [{ state: 'running', joined: 4 }, 'joined'],
    [{ state: 'completing', joined: 4 }, 'ending'],
    [{ state: 'done' }, 'done'],
    [{ state: 'failed' }, 'failed']
  ] as [Partial<IJob>, string][])('%o is %s', (changes, words) => {
    expect(jobState(job(changes))).toBe(words);
  });
});

describe('the session on one line', () => {
  test('tells of workers, of what is queued, and of the time', () => {
    const workers = { joined: 5, cores: 10, memory_bytes: 0, pending: 2 };
    expect(summary(anAnswer({ workers, time_left_s: 43 * 60 }), 0, false)).toBe('5 workers · 2 queued · 0:43 left');
  });

  test('leaves out what there is not', () => {
    const workers = { joined: 1, cores: 2, memory_bytes: 0, pending: 0 };
    expect(summary(anAnswer({ workers, time_left_s: null }), 0, false)).toBe('1 worker');
  });

  test('takes the age of what is known from the time', () => {
    expect(summary(anAnswer({ time_left_s: 200 }), 110, false)).toContain('90 s left');
  });

  test('says how old it is where nobody answers', () => {
    expect(summary(anAnswer({ time_left_s: 3600 }), 60, true)).toBe(
      '3 workers · 1 queued · 0:59 left · last known 60 s ago'
    );
  });

  test('is the state of a session that does not run', () => {
    expect(summary(anAnswer({ state: 'queued' }), 0, false)).toBe('session queued');
  });

  test('goes on where the batch system is silent', () => {
    expect(summary(anAnswer({ state: 'unknown', time_left_s: 3600 }), 0, false)).toBe(
      'state unknown · 3 workers · 1 queued · 1:00 left'
    );
  });

  test('is empty where there is none', () => {
    expect([summary(null, 0, false), summary(null, 0, true), summary(anAnswer(null), 0, false)]).toEqual(['', '', '']);
  });
});
