import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { SessionModel } from '../model';
import { NoAnswer, Problem } from '../request';
import { anAnswer, FakeServer } from './server';

let server: FakeServer;
let model: SessionModel;

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  server.say('GET session', anAnswer());
  model = new SessionModel({ settings: server.settings });
});

afterEach(() => {
  hide(false);
  model.dispose();
  vi.useRealTimers();
  vi.restoreAllMocks();
});

function hide(isHidden: boolean): void {
  Object.defineProperty(document, 'hidden', { configurable: true, value: isHidden });
  document.dispatchEvent(new Event('visibilitychange'));
}

const pass = (seconds: number): Promise<unknown> => vi.advanceTimersByTimeAsync(seconds * 1000);

async function begin(): Promise<void> {
  model.start();
  await pass(0.1);
}

describe('looking', () => {
  test('nothing is asked before it begins', async () => {
    await pass(60);
    hide(true);
    hide(false);
    await pass(60);
    expect(server.asked).toEqual([]);
    expect([model.answer, model.problem, model.lastKnown, model.age_s]).toEqual([null, null, null, 0]);
  });

  test('a look every two seconds, and everybody is told', async () => {
    let told = 0;
    model.changed.connect(() => told++);
    await begin();
    expect(model.answer).toEqual(anAnswer());
    await pass(20);
    expect(server.looks).toBe(11);
    expect(told).toBe(11);
  });

  test('the next look waits for the last', async () => {
    const release = server.hold('GET session');
    await begin();
    await pass(20);
    expect(server.looks).toBe(1);
    release();
    await pass(2.1);
    expect(server.looks).toBe(2);
  });

  test('another interval holds from the next look on', async () => {
    model.interval_s = 10;
    await begin();
    await pass(40);
    expect(server.looks).toBe(5);
  });

  test('what nobody watches is looked at seldom, and at once when somebody does again', async () => {
    await begin();
    hide(true);
    await pass(2);
    const before = server.looks;
    await pass(200);
    expect(server.looks - before).toBe(10);
    hide(false);
    await pass(0.1);
    expect(server.looks - before).toBe(11);
    await pass(4);
    expect(server.looks - before).toBe(13);
  });

  test('an answer grows old', async () => {
    await begin();
    server.say('GET session', null);
    await pass(40);
    expect(model.age_s).toBeCloseTo(40, 0);
    expect(model.lastKnown).toBeCloseTo(Date.now() / 1000 - 40, 0);
  });

  test('an error leaves what was known, says what it is, and goes when the next answer comes', async () => {
    await begin();
    server.say('GET session', { error: 'Unreachable', message: 'the batch system is down' }, 502);
    await pass(2.1);
    expect(model.problem).toBeInstanceOf(Problem);
    expect(model.problem?.message).toBe('the batch system is down');
    expect(model.answer).toEqual(anAnswer());
    server.say('GET session', anAnswer({ state: 'ending' }));
    await pass(10);
    expect(model.problem).toBeNull();
    expect(model.answer?.session?.state).toBe('ending');
  });

  test('a server that is gone is asked less and less often, but at least each minute', async () => {
    // how much longer is left to chance
    vi.spyOn(Math, 'random').mockReturnValue(0.5);
    server.say('GET session', null);
    await begin();
    expect(model.problem).toBeInstanceOf(NoAnswer);
    await pass(600);
    const before = server.looks;
    expect(before).toBeLessThan(60);
    await pass(600);
    expect(server.looks - before).toBeGreaterThanOrEqual(9);
    expect(server.looks - before).toBeLessThan(60);
  });

  test('an answer that a later look has overtaken is old', async () => {
    await begin();
    const release = server.hold('GET session');
    await pass(2.1);
    server.say('GET session', anAnswer({ name: 'new-one' }));
    void model.refresh();
    await pass(0.1);
    release();
    await pass(0.1);
    expect(model.answer?.session?.name).toBe('new-one');
  });

  test('refresh looks at once and never rejects', async () => {
    server.say('GET session', null);
    const done = vi.fn();
    void model.refresh().then(done);
    await pass(0.1);
    expect(done).toHaveBeenCalled();
    expect(model.problem).toBeInstanceOf(NoAnswer);
  });

  test('the first answer is waited for, through errors', async () => {
    const first = vi.fn();
    void model.first.then(first);
    server.say('GET session', null);
    await begin();
    expect(first).not.toHaveBeenCalled();
    server.say('GET session', anAnswer());
    await pass(10);
    expect(first).toHaveBeenCalledWith(anAnswer());
  });

  test('a name that returns is another session', async () => {
    await begin();
    const before = model.which;
    expect(before).toContain('calm-otter');
    server.say('GET session', anAnswer({ created: 1800000000 }));
    await pass(2.1);
    expect(model.which).not.toBe(before);
    server.say('GET session', anAnswer(null));
    await pass(2.1);
    expect(model.which).toBe('');
  });
});

describe('while the server starts', () => {
  beforeEach(() => {
    server.say('GET session', { message: 'Not Found' }, 404);
  });

  test('routes that are not there yet are no fault, and are asked for again in a second', async () => {
    await begin();
    await pass(5);
    expect(model.problem).toBeNull();
    expect(server.looks).toBe(6);
    server.say('GET session', anAnswer());
    await pass(1);
    expect(model.answer).toEqual(anAnswer());
    // and then as always
    await pass(20);
    expect(server.looks).toBe(17);
  });

  test('routes that never come are told after a while', async () => {
    await begin();
    await pass(14);
    expect(model.problem).toBeNull();
    await pass(3);
    expect(model.problem?.message).toContain('knows nothing of hpclab');
  });

  test('who refreshes meanwhile is not kept waiting', async () => {
    const done = vi.fn();
    void model.refresh().then(done);
    await pass(0.1);
    expect(done).toHaveBeenCalled();
  });

  test('another error is told at once', async () => {
    server.say('GET session', { error: 'Forbidden', message: 'log in' }, 403);
    await begin();
    expect(model.problem?.message).toBe('log in');
  });

  test('routes that were there already are missed at once', async () => {
    server.say('GET session', anAnswer());
    await begin();
    server.say('GET session', {}, 404);
    await pass(2.1);
    expect(model.problem).toBeInstanceOf(Problem);
  });
});

describe('doing', () => {
  const WANTED = { count: 2, cores: '4', memory: '8G', walltime: '1h', request: 'one click' };

  beforeEach(async () => {
    server.say('POST workers', { jobs: ['5', '6'], text: 'submitted jobs 5, 6' }, 201);
    server.say('POST scale', { text: 'as wanted' });
    server.say('DELETE workers/a%2Fb', { text: 'it left' });
    server.say('POST stop', { jobs: ['1', '2'] }, 202);
    server.say('POST start', { name: 'new-one' }, 201);
    await begin();
  });

  test('each deed asks what it is to ask, and gives the answer', async () => {
    expect(await model.add(WANTED)).toBe('submitted jobs 5, 6');
    expect(await model.scale(7)).toBe('as wanted');
    expect(await model.retire('a/b')).toBe('it left');
    expect(await model.stop()).toEqual(['1', '2']);
    expect(await model.startLocal()).toBe('new-one');
    expect(server.deeds).toEqual([
      { method: 'POST', path: 'workers', body: WANTED },
      { method: 'POST', path: 'scale', body: { workers: 7 } },
      { method: 'DELETE', path: 'workers/a%2Fb', body: undefined },
      { method: 'POST', path: 'stop', body: {} },
      { method: 'POST', path: 'start', body: { queue: 'local' } }
    ]);
  });

  test('a job’s story and its log are asked for', async () => {
    const story = { job: anAnswer().session!.jobs[0], events: [], log_tail: '' };
    server.say('GET jobs/a%2Fb/why', story);
    server.say('GET jobs/a%2Fb/log', { text: 'the end', is_cut: true });
    expect(await model.why('a/b')).toEqual(story);
    expect(await model.log('a/b', 10)).toEqual({ text: 'the end', is_cut: true });
    expect(server.deeds.map(({ path }) => path)).toEqual(['jobs/a%2Fb/why', 'jobs/a%2Fb/log?lines=10']);
  });

  test('what was done is seen at once', async () => {
    const before = server.looks;
    await model.scale(7);
    await pass(0.1);
    expect(server.looks).toBe(before + 1);
  });

  test('a click that is said twice is one request, and both get its answer', async () => {
    const release = server.hold('POST workers');
    const both = Promise.all([model.add(WANTED), model.add(WANTED)]);
    await pass(1);
    expect([model.isBusy, model.isDoing('add'), model.isDoing('scale')]).toEqual([true, true, false]);
    release();
    expect(await both).toEqual(['submitted jobs 5, 6', 'submitted jobs 5, 6']);
    expect(server.deeds).toHaveLength(1);
    expect([model.isBusy, model.isDoing('add')]).toEqual([false, false]);
  });

  test('two clicks are two requests', async () => {
    await Promise.all([model.add(WANTED), model.add({ ...WANTED, request: 'another click' })]);
    expect(server.deeds).toHaveLength(2);
  });

  test('what failed is not under way any more, and can be tried again', async () => {
    server.say('POST scale', { error: 'Refused', message: 'over your limit' }, 422);
    await expect(model.scale(7)).rejects.toMatchObject({ name: 'Refused', message: 'over your limit' });
    expect(model.isBusy).toBe(false);
    server.say('POST scale', { text: 'now' });
    expect(await model.scale(7)).toBe('now');
  });

  test('who shows what is under way is told when it begins and when it ends', async () => {
    const seen: boolean[] = [];
    model.changed.connect(() => seen.push(model.isDoing('scale')));
    await model.scale(7);
    expect(seen).toEqual([true, false]);
  });
});

describe('whether there is a session, and whether one may start', () => {
  const both = (): boolean[] => [model.hasSession, model.canStart];

  test('neither before the first answer', () => {
    expect(both()).toEqual([false, false]);
  });

  test.each([
    ['running', true, false],
    ['queued', true, false],
    ['unknown', true, false],
    ['ended', false, true],
    ['failed', false, true]
  ] as const)('a session that is %s', async (state, has, can) => {
    server.say('GET session', anAnswer({ state }));
    await begin();
    expect(both()).toEqual([has, can]);
  });

  test('none at all', async () => {
    server.say('GET session', anAnswer(null));
    await begin();
    expect(both()).toEqual([false, true]);
  });

  test('where nobody answers nothing can be started', async () => {
    server.say('GET session', anAnswer(null));
    await begin();
    server.say('GET session', null);
    await pass(2.1);
    expect(both()).toEqual([false, false]);
  });
});

describe('stopping', () => {
  beforeEach(async () => {
    server.say('POST stop', { jobs: ['1'] }, 202);
    await begin();
  });

  async function stop(): Promise<void> {
    await model.stop();
    await pass(0.1);
  }

  test('from the answer on, and no longer if it was refused', async () => {
    expect(model.isStopping).toBe(false);
    await stop();
    expect([model.isStopping, model.hasSession, model.canStart]).toEqual([true, false, false]);
  });

  test('a refusal changes nothing', async () => {
    server.say('POST stop', { error: 'NotRunning', message: 'it has ended' }, 409);
    await expect(model.stop()).rejects.toThrow('it has ended');
    expect(model.isStopping).toBe(false);
  });

  test('it lasts while the server is silent', async () => {
    await stop();
    server.say('GET session', anAnswer({ state: 'ending' }));
    await pass(2.1);
    server.say('GET session', null);
    await pass(60);
    expect(model.isStopping).toBe(true);
  });

  test.each([
    ['it has ended', anAnswer({ state: 'ended' }), [false, false, true]],
    ['there is none any more', anAnswer(null), [false, false, true]],
    ['it could not be stopped', anAnswer({}, { trouble: 'scancel was refused' }), [false, true, false]]
  ])('a server that outlives it says that %s', async (_what, answer, state) => {
    await stop();
    server.say('GET session', answer);
    await pass(2.1);
    expect([model.isStopping, model.hasSession, model.canStart]).toEqual(state);
  });
});

describe('disposed of', () => {
  test('it asks no more, tells nobody, and leaves no timer', async () => {
    await begin();
    const told = vi.fn();
    model.changed.connect(told);
    const before = server.asked.length;
    model.dispose();
    model.dispose();
    hide(true);
    hide(false);
    await model.refresh();
    await pass(60);
    expect(model.isDisposed).toBe(true);
    expect(server.asked).toHaveLength(before);
    expect(told).not.toHaveBeenCalled();
    expect(vi.getTimerCount()).toBe(0);
  });

  test('the page has no listener of it any more', () => {
    const added = vi.spyOn(document, 'addEventListener');
    const removed = vi.spyOn(document, 'removeEventListener');
    new SessionModel({ settings: server.settings }).dispose();
    expect(added).toHaveBeenCalled();
    expect(removed.mock.calls).toEqual(added.mock.calls);
  });

  test('an answer that comes then is not told', async () => {
    const release = server.hold('GET session');
    await begin();
    const told = vi.fn();
    model.changed.connect(told);
    model.dispose();
    release();
    await pass(1);
    expect(told).not.toHaveBeenCalled();
    expect(model.answer).toBeNull();
  });
});
