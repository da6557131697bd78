import { act, fireEvent } from '@testing-library/react';
import { Widget } from '@lumino/widgets';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { SessionModel } from '../model';
import { SessionStatus } from '../statusbar';
import { IAnswer } from '../tokens';
import { aModel, anAnswer, FakeServer } from './server';

let server: FakeServer;
let model: SessionModel;
let status: SessionStatus;
const open = vi.fn();

beforeEach(async () => {
  server = new FakeServer();
  model = await aModel(server, anAnswer({ time_left_s: 43 * 60 + 50 }));
  open.mockClear();
  status = new SessionStatus(model, open);
  await act(async () => {
    Widget.attach(status, document.body);
    await status.renderPromise;
  });
});

afterEach(() => {
  act(() => status.dispose());
  model.dispose();
});

async function hear(answer: IAnswer | null): Promise<void> {
  server.say('GET session', answer);
  await act(() => model.refresh());
}

const item = (): HTMLElement => status.node.querySelector<HTMLElement>('[role=button]')!;

test('it shows the session on one line', () => {
  expect(item().textContent).toBe('3 workers · 1 queued · 0:43 left');
  expect(item().title).toContain('calm-otter');
});

test('it follows the session', async () => {
  await hear(anAnswer({ state: 'ending' }));
  expect(item().textContent).toBe('session ending');
  expect(status.text).toBe('session ending');
});

test('it says how old it is where nobody answers', async () => {
  await hear(null);
  expect(item().textContent).toContain('last known 0 s ago');
});

test('it has nothing to say where there is no session', async () => {
  await hear(anAnswer(null));
  expect(status.text).toBe('');
});

test('a click opens the panel', () => {
  fireEvent.click(item());
  expect(open).toHaveBeenCalledTimes(1);
});

test.each(['Enter', ' '])('so does the key %j, which does nothing else then', key => {
  expect(fireEvent.keyDown(item(), { key })).toBe(false);
  expect(open).toHaveBeenCalledTimes(1);
});

test('other keys do what they always do', () => {
  expect(fireEvent.keyDown(item(), { key: 'Tab' })).toBe(true);
  expect(open).not.toHaveBeenCalled();
  expect(item().tabIndex).toBe(0);
});
