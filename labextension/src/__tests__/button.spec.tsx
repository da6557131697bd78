import { act, cleanup, fireEvent, render, screen } from '@testing-library/react';
import * as React from 'react';
import { afterEach, expect, test, vi } from 'vitest';

import { ActionButton } from '../button';

afterEach(cleanup);

/** Work that goes on until it is told how it ends. */
function work(): { onAct: () => Promise<void>; begun: () => number; end: (how?: Error) => Promise<void> } {
  const ends: ((how?: Error) => void)[] = [];
  return {
    onAct: () =>
      new Promise((resolve, reject) => {
        ends.push(how => (how ? reject(how) : resolve()));
      }),
    begun: () => ends.length,
    end: async how => {
      await act(async () => {
        ends.at(-1)!(how);
        await Promise.resolve();
      });
    }
  };
}

const button = (): HTMLElement => screen.getByRole('button');

test('a double click does it once, and it can be done again when it is done', async () => {
  const { onAct, begun, end } = work();
  render(<ActionButton onAct={onAct}>Do it</ActionButton>);
  fireEvent.click(button());
  fireEvent.click(button());
  expect(begun()).toBe(1);
  await end();
  fireEvent.click(button());
  expect(begun()).toBe(2);
});

test('two clicks before the page is drawn anew do it once', () => {
  const { onAct, begun } = work();
  render(<ActionButton onAct={onAct}>Do it</ActionButton>);
  act(() => {
    button().click();
    button().click();
  });
  expect(begun()).toBe(1);
});

test('it says that it is at work, and keeps the focus', async () => {
  const { onAct, end } = work();
  render(<ActionButton onAct={onAct}>Do it</ActionButton>);
  button().focus();
  fireEvent.click(button());
  expect(button().getAttribute('aria-disabled')).toBe('true');
  expect(document.activeElement).toBe(button());
  await end();
  expect(button().getAttribute('aria-disabled')).not.toBe('true');
});

test('what failed can be tried again', async () => {
  const { onAct, begun, end } = work();
  render(<ActionButton onAct={onAct}>Do it</ActionButton>);
  fireEvent.click(button());
  await end(new Error('refused'));
  fireEvent.click(button());
  expect(begun()).toBe(2);
});

test('a disabled one does nothing', () => {
  const onAct = vi.fn(() => Promise.resolve());
  render(
    <ActionButton onAct={onAct} disabled>
      Do it
    </ActionButton>
  );
  fireEvent.click(button());
  expect(onAct).not.toHaveBeenCalled();
});

test('it has what a button may have', () => {
  render(
    <ActionButton onAct={() => Promise.resolve()} className="mine" aria-label="Retire job 2">
      x
    </ActionButton>
  );
  expect(screen.getByRole('button', { name: 'Retire job 2' }).className).toBe('mine');
  expect(button().getAttribute('type')).toBe('button');
});
