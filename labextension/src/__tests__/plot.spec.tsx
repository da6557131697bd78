import { cleanup, render, screen } from '@testing-library/react';
import * as React from 'react';
import { afterEach, describe, expect, test } from 'vitest';

import { Plot, steps } from '../plot';
import { IHistory } from '../tokens';
import { moment } from '../words';
import { anAnswer } from './server';

afterEach(cleanup);

const HISTORY = anAnswer().history;

function show(history: Partial<IHistory> = {}): void {
  render(<Plot history={{ ...HISTORY, ...history }} />);
}

const drawing = (): HTMLElement => screen.getByRole('img');
const path = (name: string): string => drawing().querySelector(`.hpclab-Plot-${name}`)!.getAttribute('d')!;
const legend = (): string[] =>
  [...document.querySelectorAll('.hpclab-Plot-legend > span')].map(({ textContent }) => textContent);

test('a number of cores holds until the next one is known', () => {
  expect(steps([0, 5, 9], [1, 2, 3])).toBe('M0 1H5V2H9V3');
  expect(steps([4], [7])).toBe('M4 7');
});

describe('the drawing', () => {
  test('goes from the first moment to the last, and from none to the most', () => {
    show();
    expect(path('requested')).toBe('M0 0H120V0H240V12');
    expect(path('running')).toBe('M0 60H120V24H240V24');
    expect(path('busy')).toBe('M0 60H120V48H240V39');
  });

  test('fills what runs and what is busy down to the ground', () => {
    show();
    expect(path('runningArea')).toBe('M0 60H120V24H240V24V60H0Z');
    expect(path('busyArea')).toBe('M0 60H120V48H240V39V60H0Z');
  });

  test('lets busy cores be told from running ones without colour: by a pattern', () => {
    show();
    const pattern = drawing().querySelector('pattern')!;
    expect(drawing().querySelector<SVGElement>('.hpclab-Plot-busyArea')!.style.fill).toContain(pattern.id);
  });

  test('places moments by their time, not by their number', () => {
    show({ time: [0, 90, 100] });
    expect(path('running')).toBe('M0 60H216V24H240V24');
  });

  test('is flat where no core was asked for', () => {
    show({ requested: [0, 0, 0], running: [0, 0, 0], busy: [0, 0, 0] });
    expect(path('requested')).toBe('M0 60H120V60H240V60');
  });

  test('takes three thousand points', () => {
    const time = Array.from({ length: 3000 }, (_, index) => index);
    const cores = time.map(at => at % 7);
    show({ time, requested: cores, running: cores, busy: cores });
    expect(path('running')).not.toMatch(/NaN|Infinity/);
    expect(path('running').split('H')).toHaveLength(3000);
  });
});

describe('in words', () => {
  test('it says how many there are now', () => {
    show();
    expect(legend()).toEqual(['requested 8', 'running 6', 'busy 3.5']);
  });

  test('it says all to a screen reader', () => {
    show();
    const said = drawing()
      .getAttribute('aria-labelledby')!
      .split(' ')
      .map(id => document.getElementById(id)!.textContent);
    expect(said).toEqual([
      'Cores over time',
      `From ${moment(HISTORY.time[0])} until ${moment(HISTORY.time[2])}, at most 10 cores. ` +
        'Last: 8 requested, 6 running, 3.5 busy.'
    ]);
  });

  test('it has its axes’ ends beside it', () => {
    show({ busy: [0, 0, 12.345] });
    expect(document.querySelector('.hpclab-Plot-top')!.textContent).toBe('12.3');
    expect(document.querySelector('.hpclab-Plot-times')!.textContent).toBe(
      moment(HISTORY.time[0]) + moment(HISTORY.time[2])
    );
  });

  test('two of them do not mix up their patterns', () => {
    show();
    show();
    const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });
});

test.each([
  ['nothing', []],
  ['one moment', [5]],
  ['no time between two', [5, 5]]
])('where there is %s it says that there will be something', (_what, time) => {
  const cores = time.map(() => 1);
  show({ time, requested: cores, running: cores, busy: cores });
  expect(screen.queryByRole('img')).toBeNull();
  expect(screen.getByText(/drawn here as soon as there are some/)).toBeTruthy();
});
