import { cleanup, render } from '@testing-library/react';
import * as React from 'react';
import { afterEach, expect, test } from 'vitest';

import { Mark } from '../mark';

afterEach(cleanup);

function drawn(state: Parameters<typeof Mark>[0]['state']): SVGElement {
  return render(<Mark state={state} />).container.querySelector('svg')!;
}

test('a reader of the screen hears the words beside it only', () => {
  expect(drawn('running').getAttribute('aria-hidden')).toBe('true');
});

test('states that differ in kind differ in shape, not in colour alone', () => {
  const shapes = (
    ['pending', 'held', 'starting', 'running', 'ending', 'done', 'failed', 'gone', 'unknown'] as const
  ).map(state => drawn(state).innerHTML);
  expect(new Set(shapes).size).toBe(shapes.length);
});

test.each([
  ['pending', 'queued'],
  ['completing', 'ending'],
  ['done', 'ended'],
  ['failed', 'unreadable']
] as const)('%s of a job looks like %s of a session', (job, session) => {
  expect(drawn(job).innerHTML).toBe(drawn(session).innerHTML);
});

test('the style knows its state', () => {
  expect(drawn('cancelled').dataset.state).toBe('cancelled');
});
