import { Notification } from '@jupyterlab/apputils';
import { StateDB } from '@jupyterlab/statedb';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { SessionModel } from '../model';
import { IAnswer, ISession } from '../tokens';
import { LAST_S, SOON_S, WalltimeWarnings } from '../walltime';
import { aModel, anAnswer, FakeServer } from './server';

let server: FakeServer;
let state: StateDB;
let models: SessionModel[];
const saveAll = vi.fn();

beforeEach(() => {
  server = new FakeServer();
  state = new StateDB();
  models = [];
  saveAll.mockClear();
  Notification.manager.dismiss();
});

afterEach(() => {
  models.forEach(model => model.dispose());
});

/** A page is loaded, and this is what it hears; then what comes after. */
async function page(
  session: Partial<ISession> | null,
  db: StateDB | null = state
): Promise<(then: IAnswer) => Promise<void>> {
  const model = await aModel(server, anAnswer(session));
  models.push(model);
  new WalltimeWarnings({ model, saveAll, state: db });
  await settled();
  return async then => {
    server.say('GET session', then);
    await model.refresh();
    await settled();
  };
}

/** What is kept of a page is fetched and written without a timer. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) {
    await Promise.resolve();
  }
}

function shown(): string[] {
  return Notification.manager.notifications.map(({ type, message }) => `${type}: ${message}`);
}

const left = (seconds: number | null): IAnswer => anAnswer({ time_left_s: seconds });

test('in good time nothing is said', async () => {
  await page({ time_left_s: SOON_S + 5 });
  expect(shown()).toEqual([]);
});

test('a warning ten minutes before, and not again at each look', async () => {
  const hear = await page({ time_left_s: SOON_S + 5 });
  await hear(left(SOON_S - 1));
  expect(shown()).toEqual(['warning: The session calm-otter ends in 9 min. Save your notebooks.']);
  Notification.manager.dismiss();
  await hear(left(SOON_S - 3));
  expect(shown()).toEqual([]);
});

test('at the last an error in its place, which saves all', async () => {
  const hear = await page({ time_left_s: SOON_S - 1 });
  await hear(left(LAST_S - 1));
  expect(shown()).toEqual(['error: The session calm-otter ends in 1 min. What is not saved then is lost.']);
  const [{ options }] = Notification.manager.notifications;
  expect(options.autoClose).toBe(false);
  expect(options.actions?.map(({ label }) => label)).toEqual(['Save all']);
  options.actions![0].callback(new MouseEvent('click'));
  expect(saveAll).toHaveBeenCalledTimes(1);
});

test('it takes what it said back where the walltime is lengthened, and warns anew then', async () => {
  const hear = await page({ time_left_s: LAST_S - 1 });
  await hear(left(3600));
  expect(shown()).toEqual([]);
  await hear(left(SOON_S - 1));
  expect(shown()).toHaveLength(1);
});

test.each([
  ['has ended', anAnswer({ state: 'ended', time_left_s: null })],
  ['is none any more', anAnswer(null)]
])('it takes it back where the session %s', async (_what, then) => {
  const hear = await page({ time_left_s: LAST_S - 1 });
  expect(shown()).toHaveLength(1);
  await hear(then);
  expect(shown()).toEqual([]);
});

test('a session that is told to stop needs no warning', async () => {
  await page({ time_left_s: SOON_S - 1 });
  server.say('POST stop', { jobs: ['1'] });
  await models[0].stop();
  await settled();
  expect(shown()).toEqual([]);
});

test.each([
  ['whose time is not known', { time_left_s: null }],
  ['that waits', { state: 'queued', time_left_s: 60 }]
] as [string, Partial<ISession>][])(
  'a session %s is not warned of, and what was said stays',
  async (_what, session) => {
    await page(session);
    expect(shown()).toEqual([]);
    const hear = await page({ time_left_s: SOON_S - 1 });
    await hear(anAnswer(session));
    expect(shown()).toHaveLength(1);
  }
);

test('a batch system that is silent does not stop the clock', async () => {
  await page({ state: 'unknown', time_left_s: LAST_S - 1 });
  expect(shown()[0]).toContain('What is not saved then is lost');
});

test('time goes on where the server is silent', async () => {
  const hear = await page({ time_left_s: SOON_S + 30 });
  const now = Date.now();
  vi.spyOn(Date, 'now').mockReturnValue(now + 60_000);
  server.say('GET session', null);
  await models[0].refresh();
  vi.restoreAllMocks();
  expect(shown()).toHaveLength(1);
  await hear(left(SOON_S - 31));
  expect(shown()).toHaveLength(1);
});

test('a page that is loaded anew does not warn again, but at the last', async () => {
  await page({ time_left_s: SOON_S - 1 });
  models[0].dispose();
  Notification.manager.dismiss();
  const hear = await page({ time_left_s: SOON_S - 60 });
  expect(shown()).toEqual([]);
  await hear(left(LAST_S - 1));
  expect(shown()).toHaveLength(1);
  models[1].dispose();
  Notification.manager.dismiss();
  await page({ time_left_s: LAST_S - 30 });
  expect(shown()).toHaveLength(1);
});

test('it warns of another session, be its name the same', async () => {
  await page({ time_left_s: SOON_S - 1 });
  models[0].dispose();
  Notification.manager.dismiss();
  await page({ time_left_s: SOON_S - 60, created: 1800000000 });
  expect(shown()).toHaveLength(1);
});

test('it warns anew where the walltime was lengthened before the page was loaded anew', async () => {
  const hear = await page({ time_left_s: SOON_S - 1 });
  await hear(left(3600));
  models[0].dispose();
  await page({ time_left_s: SOON_S - 1 });
  expect(shown()).toHaveLength(1);
});

test('where nothing outlives the page it warns all the same', async () => {
  await page({ time_left_s: SOON_S - 1 }, null);
  expect(shown()).toHaveLength(1);
});
