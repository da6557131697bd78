import { CommandRegistry } from '@lumino/commands';
import { Widget } from '@lumino/widgets';
import { fireEvent, waitFor } from '@testing-library/dom';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { PANEL_ID } from '../commands';
import { SessionModel } from '../model';
import { changes, SessionPanel } from '../panel';
import { CommandIDs, IAnswer, IJob, SessionState } from '../tokens';
import { moment } from '../words';
import { aModel, anAnswer, FakeServer } from './server';

const [MAIN, JOINED, QUEUED, FAILED] = anAnswer().session!.jobs;
const HTML = '<img src=x onerror="boom()"><b>bold</b>';
const START = 'Start a session on this machine';

let server: FakeServer;
let model: SessionModel;
let panel: SessionPanel;
let commands: CommandRegistry;
/** The commands that were carried out, with the job. */
let ran: string[];

beforeEach(() => {
  server = new FakeServer();
  ran = [];
  commands = new CommandRegistry();
  for (const id of Object.values(CommandIDs)) {
    commands.addCommand(id, { execute: ({ id: job }) => void ran.push(job ? `${id} ${job as string}` : id) });
  }
});

afterEach(() => {
  vi.useRealTimers();
  panel.dispose();
  model.dispose();
});

/** The panel of a session that has been looked at. */
async function show(answer: IAnswer = anAnswer()): Promise<void> {
  model = await aModel(server, answer);
  await attach();
}

async function attach(): Promise<void> {
  panel = new SessionPanel(model, commands);
  Widget.attach(panel, document.body);
  await waitFor(() => expect(text()).not.toBe(''));
}

/** What the server says from now on; null: nothing at all. */
async function hear(answer: IAnswer | null): Promise<void> {
  server.say('GET session', answer);
  await model.refresh();
}

const text = (): string => panel.node.textContent;
const find = <T extends HTMLElement>(selector: string): T | null => panel.node.querySelector<T>(selector);
const bar = (): HTMLElement => find('[role=progressbar]')!;
const strips = (): string[] =>
  [...panel.node.querySelectorAll<HTMLElement>('.hpclab-Strip')].map(
    strip => `${strip.dataset.kind}: ${strip.textContent}`
  );
const announced = (): string => find('[aria-live=polite]')!.textContent;
const buttons = (): string[] =>
  [...panel.node.querySelectorAll('.hpclab-Button')].map(({ textContent }) => textContent);
const sums = (): Record<string, string> =>
  Object.fromEntries(
    [...panel.node.querySelectorAll('.hpclab-Sums dt')].map(dt => [dt.textContent, dt.nextElementSibling!.textContent])
  );

function press(label: string): void {
  const found = [...panel.node.querySelectorAll('button')].find(
    button => button.textContent === label || button.getAttribute('aria-label') === label
  );
  fireEvent.click(found!);
}

test('is a region of its own, by the name that the commands know', async () => {
  await show();
  expect(panel.id).toBe(PANEL_ID);
  expect([panel.node.getAttribute('role'), panel.node.getAttribute('aria-label')]).toEqual([
    'region',
    'Session on the cluster'
  ]);
  expect(panel.title.caption).toBe('Session on the cluster');
});

describe('a session that runs', () => {
  test('says its name, its state and where it is', async () => {
    await show();
    expect(find('h2')!.textContent).toBe('calm-otter');
    expect(find('.hpclab-Header-state')!.textContent).toBe('running');
    expect(find('.hpclab-Header-where')!.textContent).toBe('on node17 · queue local');
  });

  test('says what it has and what it costs', async () => {
    await show();
    expect(sums()).toEqual({
      cores: '6',
      memory: '12 GiB',
      workers: '3',
      queued: '1',
      'core-h used': '0.1',
      'core-h idle': '0.07'
    });
  });

  test('does not call unknown what is idle none', async () => {
    await show(anAnswer({ core_hours: { used: 12345.6, idle: null } }));
    expect(sums()).toMatchObject({ 'core-h used': '12346', 'core-h idle': '–' });
  });

  test('draws its cores and lists its jobs', async () => {
    await show();
    expect(find('.hpclab-Plot')).not.toBeNull();
    expect([...panel.node.querySelectorAll('.hpclab-Row-name')].map(({ textContent }) => textContent)).toEqual([
      'main job 1',
      'job 3',
      'job 2'
    ]);
  });

  test.each([
    ['Add worker', CommandIDs.addWorker],
    ['Scale…', CommandIDs.scale],
    ['Stop session…', CommandIDs.stop],
    ['Log of job 2', `${CommandIDs.log} 2`],
    ['Retire job 3', `${CommandIDs.retireWorker} 3`]
  ])('has the button %s', async (label, command) => {
    await show();
    press(label);
    expect(ran).toEqual([command]);
  });

  test('adds once at a double click', async () => {
    await show();
    press('Add worker');
    press('Add worker');
    expect(ran).toEqual([CommandIDs.addWorker]);
  });

  test('changes as the server tells', async () => {
    await show();
    await hear(anAnswer({ workers: { joined: 20, cores: 80, memory_bytes: 2 ** 40, pending: 0 } }));
    await waitFor(() => expect(sums()).toMatchObject({ cores: '80', memory: '1 TiB', workers: '20', queued: '0' }));
  });

  test('has no words where there is no reason, and no start button', async () => {
    await show();
    expect(find('.hpclab-Header-reason')).toBeNull();
    expect(buttons()).toEqual(['Add worker', 'Scale…', 'Stop session…']);
  });

  test('shows five hundred jobs by a few rows', async () => {
    const jobs = Array.from({ length: 500 }, (_, index): IJob => ({ ...JOINED, id: String(index + 2) }));
    await show(anAnswer({ jobs: [MAIN, ...jobs] }));
    expect(panel.node.querySelectorAll('li').length).toBeLessThan(40);
    expect(find('li')!.getAttribute('aria-setsize')).toBe('501');
  });

  test('shows names and reasons as they were said, never as HTML', async () => {
    await show(
      anAnswer({ name: HTML, node: HTML, queue: HTML, reason: HTML }, { waiting: HTML, trouble: HTML, hint: HTML })
    );
    expect(find('img, b:not(.hpclab-TimeLeft-words b, .hpclab-Plot-legend b)')).toBeNull();
    expect(text().split(HTML).length - 1).toBeGreaterThanOrEqual(6);
  });
});

describe('the time left', () => {
  test.each([
    [3540, 'green', '59 min left'],
    [600, 'green', '10 min left'],
    [590, 'amber', '9 min left'],
    [120, 'amber', '2 min left'],
    [110, 'red', '1 min left'],
    [40, 'red', '40 s left']
  ])('of %d s is %s: %s', async (time_left_s, colour, words) => {
    await show(anAnswer({ time_left_s }));
    expect(find('.hpclab-TimeLeft')!.dataset.colour).toBe(colour);
    expect(find('.hpclab-TimeLeft-words')!.textContent).toBe(`${words}until ${moment(MAIN.end_time!)}`);
  });

  test('is a part of the walltime, and told so to a screen reader', async () => {
    await show(anAnswer({ time_left_s: 900 }));
    expect(
      ['label', 'valuemin', 'valuemax', 'valuenow', 'valuetext'].map(name => bar().getAttribute(`aria-${name}`))
    ).toEqual(['Time left of the main job', '0', '3600', '900', '15 min left of 1 h 00 min']);
    expect(find('.hpclab-TimeLeft-bar')!.style.width).toBe('25%');
  });

  test.each([
    ['more than the walltime', 7200, '100%'],
    ['less than nothing', -5, '0%']
  ])('stays in its bar when it is %s', async (_what, time_left_s, width) => {
    await show(anAnswer({ time_left_s }));
    expect(find('.hpclab-TimeLeft-bar')!.style.width).toBe(width);
  });

  test('is not shown where it is not known', async () => {
    await show(anAnswer({ time_left_s: null }));
    expect(bar()).toBeNull();
  });

  test('goes on while the server is silent', async () => {
    await show(anAnswer({ time_left_s: 900 }));
    vi.setSystemTime(Date.now() + 300_000);
    await hear(null);
    await waitFor(() => expect(bar().getAttribute('aria-valuenow')).toBe('600'));
  });
});

describe('a server that does not answer', () => {
  test('leaves what was known in place, and says how old it is and why', async () => {
    await show();
    vi.setSystemTime(Date.now() + 40_000);
    await hear(null);
    await waitFor(() =>
      expect(strips()).toEqual([
        'silence: last known 40 s ago no answer from the server of this page: ' +
          'the tunnel may be closed, or the session has ended'
      ])
    );
    expect(find('h2')!.textContent).toBe('calm-otter');
    press('Ask again');
    expect(ran).toEqual([CommandIDs.refresh]);
  });

  test('grows older by itself, and stops to when it answers again', async () => {
    await show();
    const begin = Date.now();
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'], now: begin });
    await hear(null);
    await vi.waitFor(() => expect(strips()).toHaveLength(1));
    vi.setSystemTime(begin + 15_000);
    await vi.waitFor(async () => {
      await vi.advanceTimersByTimeAsync(5000);
      expect(Number(/(\d+) s ago/.exec(text())![1])).toBeGreaterThan(14);
    });
    await hear(anAnswer());
    await vi.waitFor(() => expect(strips()).toEqual([]));
    expect(vi.getTimerCount()).toBe(0);
  });

  test('is no fault after a stop', async () => {
    server.say('POST stop', { jobs: ['1'] }, 202);
    await show();
    await model.stop();
    await hear(null);
    await waitFor(() => expect(strips()).toHaveLength(1));
    expect(strips()[0]).toMatch(/^waiting: .*The session was stopped, and this server ends with it\.$/);
    expect(find('[aria-label="Ask again"]')).toBeNull();
  });

  test('that never did shows why, and no session', async () => {
    server.say('GET session', { error: 'NoConfig', message: `cannot read ${HTML}` }, 500);
    model = new SessionModel({ settings: server.settings });
    await model.refresh();
    await attach();
    expect(strips()).toEqual([`silence: cannot read ${HTML}`]);
    expect(find('h2, img, b')).toBeNull();
  });

  test('that has not been asked yet is being asked', async () => {
    model = new SessionModel({ settings: server.settings });
    await attach();
    expect(text()).toBe('Asking how the session is…');
  });
});

describe('what the server says beside', () => {
  test('that something waits is told quietly', async () => {
    await show(anAnswer({}, { waiting: 'waiting for your hpclab on the laptop' }));
    expect(strips()).toEqual(['waiting: waiting for your hpclab on the laptop']);
    expect(find('.hpclab-Strip')!.getAttribute('role')).toBe('status');
  });

  test('trouble is told aloud, until it is dismissed, and other trouble again', async () => {
    await show(anAnswer({}, { trouble: 'could not cancel job 4' }));
    expect(find('[role=alert]')!.textContent).toBe('could not cancel job 4');
    press('Dismiss');
    await waitFor(() => expect(strips()).toEqual([]));
    await hear(anAnswer({ time_left_s: 17 }, { trouble: 'could not cancel job 4' }));
    await waitFor(() => expect(bar().getAttribute('aria-valuenow')).toBe('17'));
    expect(strips()).toEqual([]);
    await hear(anAnswer({}, { trouble: 'could not cancel job 5' }));
    await waitFor(() => expect(strips()).toEqual(['trouble: could not cancel job 5']));
  });
});

describe('without a session', () => {
  test('it says how to start one, and offers one here', async () => {
    await show(anAnswer(null));
    expect(find('h2')!.textContent).toBe('No session');
    expect(find('pre')!.textContent).toBe('no session is running here');
    expect(buttons()).toEqual([START]);
    press(START);
    expect(ran).toEqual([CommandIDs.startLocal]);
  });

  test('one that then comes is shown', async () => {
    await show(anAnswer(null));
    await hear(anAnswer());
    await waitFor(() => expect(find('h2')!.textContent).toBe('calm-otter'));
    expect(buttons()).not.toContain(START);
  });
});

describe('a session that is over', () => {
  test.each(['ended', 'failed'] as const)('(%s) offers a new one, and nothing else', async state => {
    await show(anAnswer({ state, reason: 'the main job was killed', time_left_s: null, jobs: [FAILED] }));
    expect(find('.hpclab-Header-reason')!.textContent).toBe('the main job was killed');
    expect(buttons()).toEqual([START]);
    press(START);
    expect(ran).toEqual([CommandIDs.startLocal]);
    expect(text()).toContain('job 4'); // what went wrong can still be looked at
  });

  test('offers none while its server is silent', async () => {
    await show(anAnswer({ state: 'failed' }));
    await hear(null);
    await waitFor(() => expect(strips()).toHaveLength(1));
    expect(buttons()).toEqual([]);
  });

  test('gives way to the new one', async () => {
    await show(anAnswer({ state: 'ended' }));
    await hear(anAnswer({ name: 'new-one', state: 'starting' }));
    await waitFor(() => expect(find('h2')!.textContent).toBe('new-one'));
    expect(buttons()).toEqual(['Add worker', 'Scale…', 'Stop session…']);
  });

  test('that cannot be read offers nothing', async () => {
    await show(anAnswer({ state: 'unreadable', reason: 'the state file is newer than this hpclab' }));
    expect(buttons()).toEqual([]);
    expect(find('.hpclab-Header-reason')!.textContent).toContain('newer than this hpclab');
  });
});

test.each(['queued', 'held', 'starting', 'ending', 'unknown'] as SessionState[])(
  'a session that is %s says so, and can be stopped',
  async state => {
    await show(anAnswer({ state, node: '' }));
    expect(find('.hpclab-Header-state')!.textContent).toBe(state);
    expect(find('.hpclab-Header-where')!.textContent).toBe('queue local');
    expect(buttons()).toContain('Stop session…');
  }
);

describe('a screen reader hears', () => {
  test('changes of state, and not each look', async () => {
    await show();
    await waitFor(() => expect(announced()).toBe('session calm-otter: running'));
    await hear(anAnswer({ jobs: [MAIN, JOINED, { ...QUEUED, state: 'running' }, FAILED] }));
    await waitFor(() => expect(announced()).toBe('job 3: running'));
    await hear(
      anAnswer({ time_left_s: 1800, jobs: [MAIN, JOINED, { ...QUEUED, state: 'running', cpu_percent: 3 }, FAILED] })
    );
    await waitFor(() => expect(bar().getAttribute('aria-valuenow')).toBe('1800'));
    expect(announced()).toBe('job 3: running');
  });

  const session = anAnswer().session!;
  test.each([
    ['nothing where nothing is new', session, { ...session, time_left_s: 5 }, ''],
    ['of a session that is gone', session, null, 'No session'],
    ['nothing where there never was one', null, null, ''],
    ['of the first one, not of each of its jobs', null, session, 'session calm-otter: running'],
    ['of a new job', { ...session, jobs: [MAIN] }, { ...session, jobs: [MAIN, QUEUED] }, 'job 3: queued'],
    [
      'of the session and its jobs in one sentence',
      session,
      { ...session, state: 'ending' as const, jobs: [{ ...MAIN, state: 'completing' as const }] },
      'session calm-otter: ending, job 1: ending'
    ],
    [
      'only how many, of many jobs',
      { ...session, jobs: [] },
      { ...session, jobs: [1, 2, 3, 4].map(id => ({ ...QUEUED, id: String(id) })) },
      '4 jobs have changed'
    ]
  ])('%s', (_what, before, after, words) => {
    expect(changes(before, after)).toBe(words);
  });
});
