import { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, Notification } from '@jupyterlab/apputils';
import { CommandRegistry } from '@lumino/commands';
import { Widget } from '@lumino/widgets';
import { fireEvent, waitFor } from '@testing-library/dom';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { addCommands, PALETTE, PANEL_ID } from '../commands';
import { Dask, DaskDashboard } from '../dask';
import { SessionModel } from '../model';
import { CommandIDs, IAnswer } from '../tokens';
import { aModel, anAnswer, FakeServer } from './server';

let server: FakeServer;
let model: SessionModel;
let commands: CommandRegistry;
let main: Widget[];
let activated: string[];

beforeEach(async () => {
  Notification.manager.dismiss();
  server = new FakeServer();
  server.say('POST workers', { jobs: ['5', '6'], text: 'submitted jobs 5, 6 to calm-otter' }, 201);
  server.say('POST scale', { text: 'submitted job 5' });
  server.say('DELETE workers/2', { text: 'job 2 handed over its data and left' });
  server.say('POST stop', { jobs: ['1', '2', '3'] }, 202);
  server.say('POST start', { name: 'new-one' }, 201);
  model = await aModel(server);
  commands = new CommandRegistry();
  main = [];
  activated = [];
  const shell = {
    widgets: () => main.values(),
    add: (widget: Widget) => void main.push(widget),
    activateById: (id: string) => void activated.push(id)
  } as unknown as JupyterFrontEnd.IShell;
  const dashboard = new DaskDashboard({ model, commands, shell, baseUrl: 'http://lab.test/', state: null });
  addCommands({ model, commands, shell, dashboard });
});

afterEach(() => {
  Dialog.flush();
  main.forEach(widget => widget.dispose());
  model.dispose();
});

async function hear(answer: IAnswer | null): Promise<void> {
  server.say('GET session', answer);
  await model.refresh();
}

/** Press a button of the dialog that is open, once it says this. */
async function answerDialog(button: string, words = ''): Promise<void> {
  const find = (): HTMLElement => {
    const buttons = [...document.querySelectorAll<HTMLElement>('.jp-Dialog button')];
    return buttons.find(({ textContent }) => textContent === button)!;
  };
  await waitFor(() => {
    expect(find()).toBeDefined();
    expect(document.querySelector('.jp-Dialog')!.textContent).toContain(words);
  });
  fireEvent.click(find());
}

const field = (label: string): HTMLInputElement =>
  [...document.querySelectorAll('.jp-Dialog label')]
    .find(({ textContent }) => textContent === label)!
    .querySelector('input')!;

const told = (): string[] => Notification.manager.notifications.map(({ type, message }) => `${type}: ${message}`);
const enabled = (): string[] => commands.listCommands().filter(id => commands.isEnabled(id));

describe('all of them', () => {
  test('are there, and say what they do and what they take', async () => {
    expect(commands.listCommands().sort()).toEqual(Object.values(CommandIDs).sort());
    for (const id of commands.listCommands()) {
      expect(commands.label(id)).not.toBe('');
      expect(commands.caption(id)).not.toBe('');
      expect(await commands.describedBy(id)).toMatchObject({ args: { type: 'object' } });
    }
  });

  test('that need no job of a list stand in the palette', () => {
    expect(new Set([...PALETTE, CommandIDs.retireWorker])).toEqual(new Set(Object.values(CommandIDs)));
  });

  test.each([
    ['a session that runs', anAnswer(), Object.values(CommandIDs).filter(id => id !== CommandIDs.startLocal)],
    [
      'a session that waits',
      anAnswer({ state: 'queued' }, { dashboard: '' }),
      Object.values(CommandIDs).filter(id => id !== CommandIDs.startLocal && id !== CommandIDs.dashboardLayout)
    ],
    [
      'a session that has failed',
      anAnswer({ state: 'failed' }),
      [CommandIDs.openPanel, CommandIDs.refresh, CommandIDs.startLocal, CommandIDs.why, CommandIDs.log]
    ],
    ['none', anAnswer(null), [CommandIDs.openPanel, CommandIDs.refresh, CommandIDs.startLocal]]
  ])('are enabled as far as they make sense with %s', async (_what, answer, ids) => {
    const changed = vi.fn();
    commands.commandChanged.connect(changed);
    commands.addCommand(Dask.launchLayout, { execute: () => undefined });
    await hear(anAnswer({ state: 'ending' }));
    await hear(answer);
    expect(enabled().filter(id => !id.startsWith('dask:'))).toEqual(
      Object.values(CommandIDs)
        .filter(id => ids.includes(id))
        .sort((one, other) => commands.listCommands().indexOf(one) - commands.listCommands().indexOf(other))
    );
    expect(changed).toHaveBeenCalled();
  });

  test('are not said to have changed by each look', async () => {
    await hear(anAnswer({}, { now: 1 }));
    const changed = vi.fn();
    commands.commandChanged.connect(changed);
    await hear(anAnswer({ time_left_s: 17 }, { now: 2 }));
    expect(changed).not.toHaveBeenCalled();
  });
});

test('the panel comes to the front', async () => {
  await commands.execute(CommandIDs.openPanel);
  expect(activated).toEqual([PANEL_ID]);
});

test('refresh looks now', async () => {
  const before = server.looks;
  await commands.execute(CommandIDs.refresh);
  expect(server.looks).toBe(before + 1);
});

describe('adding workers', () => {
  test('asks for what is wanted, and says what was submitted', async () => {
    const done = commands.execute(CommandIDs.addWorker) as Promise<unknown>;
    await waitFor(() => expect(field('Memory')).toBeDefined());
    fireEvent.change(field('Memory'), { target: { value: '16G' } });
    await answerDialog('Add');
    expect(await done).toBe('submitted jobs 5, 6 to calm-otter');
    expect(server.deeds).toMatchObject([
      { path: 'workers', body: { count: 1, cores: '2', memory: '16G', walltime: '1:00:00' } }
    ]);
    expect(told()).toEqual(['success: submitted jobs 5, 6 to calm-otter']);
  });

  test('submits nothing where the form is left', async () => {
    const done = commands.execute(CommandIDs.addWorker) as Promise<unknown>;
    await answerDialog('Cancel');
    expect(await done).toBeNull();
    expect([server.deeds, told()]).toEqual([[], []]);
  });

  test('does not lose what was typed when it is refused, and is another click then', async () => {
    server.say('POST workers', { error: 'ConfigError', message: 'memory: not a size: much' }, 400);
    const done = commands.execute(CommandIDs.addWorker) as Promise<unknown>;
    await waitFor(() => expect(field('Memory')).toBeDefined());
    fireEvent.change(field('Memory'), { target: { value: 'much' } });
    await answerDialog('Add');
    await waitFor(() => expect(document.querySelector('.jp-Dialog')?.textContent).toContain('not a size: much'));
    expect(field('Memory').value).toBe('much');
    server.say('POST workers', { jobs: ['5'], text: 'submitted job 5' }, 201);
    fireEvent.change(field('Memory'), { target: { value: '16G' } });
    await answerDialog('Add');
    expect(await done).toBe('submitted job 5');
    const [first, second] = server.deeds.map(({ body }) => (body as { request: string }).request);
    expect(first).toBeTruthy();
    expect(second).not.toBe(first);
  });

  test('asks nothing where all is said, and each time is a click of its own', async () => {
    const wanted = { count: 2, cores: '4', walltime: '1h' };
    await commands.execute(CommandIDs.addWorker, wanted);
    await commands.execute(CommandIDs.addWorker, wanted);
    expect(server.deeds).toMatchObject([{ body: wanted }, { body: wanted }]);
    const bodies = server.deeds.map(({ body }) => body as { request: string; memory?: string });
    expect(bodies[0].memory).toBeUndefined();
    expect(bodies[0].request).not.toBe(bodies[1].request);
  });

  test('tells a refusal, as it was said, and does not reject', async () => {
    server.say('POST workers', { error: 'Refused', message: 'over <b>your</b> limit' }, 422);
    expect(await commands.execute(CommandIDs.addWorker, { count: 2 })).toBeNull();
    expect(told()).toEqual(['error: over <b>your</b> limit']);
  });

  test('has what a notification has no room for in a dialog', async () => {
    const message = 'the queue did not take the job\n  it said: no\nask for less';
    server.say('POST workers', { error: 'Refused', message }, 422);
    await commands.execute(CommandIDs.addWorker, { count: 2 });
    expect(told()).toEqual(['error: the queue did not take the job']);
    const [details] = Notification.manager.notifications[0].options.actions ?? [];
    details.callback(new MouseEvent('click'));
    await waitFor(() => expect(document.querySelector('.jp-Dialog')?.textContent).toContain('ask for less'));
    await answerDialog('Close');
  });
});

describe('scaling', () => {
  test('asks how many, from what there is and is coming', async () => {
    const done = commands.execute(CommandIDs.scale) as Promise<unknown>;
    await waitFor(() => expect(field('Workers')).toBeDefined());
    expect(field('Workers').value).toBe('4');
    fireEvent.change(field('Workers'), { target: { value: '7' } });
    await answerDialog('Scale');
    expect(await done).toBe('submitted job 5');
    expect(server.deeds).toMatchObject([{ path: 'scale', body: { workers: 7 } }]);
  });

  test('to none asks nothing where it is said', async () => {
    await commands.execute(CommandIDs.scale, { workers: 0 });
    expect(server.deeds).toMatchObject([{ path: 'scale', body: { workers: 0 } }]);
  });

  test('does nothing where the form is left', async () => {
    const done = commands.execute(CommandIDs.scale) as Promise<unknown>;
    await answerDialog('Cancel');
    expect(await done).toBeNull();
    expect(server.deeds).toEqual([]);
  });
});

describe('retiring', () => {
  test('a worker says how it went', async () => {
    await commands.execute(CommandIDs.retireWorker, { id: '2' });
    expect(server.deeds).toMatchObject([{ method: 'DELETE', path: 'workers/2' }]);
    expect(told()).toEqual(['success: job 2 handed over its data and left']);
  });

  test('nobody in particular does nothing', async () => {
    expect(await commands.execute(CommandIDs.retireWorker)).toBeNull();
    expect(server.deeds).toEqual([]);
  });
});

describe('a job’s story and its log', () => {
  test.each([
    [CommandIDs.why, 'hpclab-why-2', 'Why: the Story of Job 2', 'Why: the Story of the Main Job'],
    [CommandIDs.log, 'hpclab-log-2', 'Log of Job 2', 'Log of the Main Job']
  ])('%s opens a tab, and the same one again', async (command, tab, label, mainLabel) => {
    await commands.execute(command, { id: '2' });
    await commands.execute(command, { id: '2' });
    expect(main.map(({ id }) => id)).toEqual([tab]);
    expect(activated).toEqual([tab, tab]);
    expect(commands.label(command, { id: '2' })).toBe(label);
    expect(commands.label(command)).toBe(mainLabel);
  });

  test('are the latest main job’s where no job is named', async () => {
    const [job] = anAnswer().session!.jobs;
    await hear(anAnswer({ jobs: [job, { ...job, id: '9' }, { ...job, id: '10', role: 'worker' }] }));
    await commands.execute(CommandIDs.log);
    expect(main.map(({ id }) => id)).toEqual(['hpclab-log-9']);
  });
});

describe('stopping', () => {
  test('asks first, and says what will be cancelled', async () => {
    const done = commands.execute(CommandIDs.stop) as Promise<unknown>;
    await answerDialog('Stop session', 'the main job 1 on node17 and 2 worker jobs');
    expect(await done).toContain('The session calm-otter ends: jobs 1, 2, 3 will be cancelled.');
    expect(server.deeds).toMatchObject([{ path: 'stop' }]);
  });

  test('does nothing at a no', async () => {
    const done = commands.execute(CommandIDs.stop) as Promise<unknown>;
    await answerDialog('Cancel');
    expect(await done).toBeNull();
    expect(server.deeds).toEqual([]);
  });

  test.each([
    [['1'], 'job 1 will'],
    [['1', '2', '3', '4', '5', '6'], '6 jobs will']
  ])('names jobs as long as they are few: %j', async (jobs, words) => {
    server.say('POST stop', { jobs }, 202);
    const done = commands.execute(CommandIDs.stop) as Promise<unknown>;
    await answerDialog('Stop session');
    expect(await done).toContain(words);
  });
});

describe('starting on this machine', () => {
  test('is offered where there is none, and says its name', async () => {
    await hear(anAnswer(null));
    expect(commands.isVisible(CommandIDs.startLocal)).toBe(true);
    await commands.execute(CommandIDs.startLocal);
    expect(told()).toEqual(['success: The session new-one starts on this machine.']);
  });

  test('is not offered where there is one', () => {
    expect(commands.isVisible(CommandIDs.startLocal)).toBe(false);
  });

  test('waits for the one that is under way', async () => {
    await hear(anAnswer(null));
    const release = server.hold('POST start');
    const done = commands.execute(CommandIDs.startLocal) as Promise<unknown>;
    expect(commands.isEnabled(CommandIDs.startLocal)).toBe(false);
    release();
    await done;
    expect(commands.isEnabled(CommandIDs.startLocal)).toBe(true);
  });
});

describe('Dask’s plots', () => {
  test('are no command where dask-labextension is not installed', () => {
    expect(commands.isVisible(CommandIDs.dashboardLayout)).toBe(false);
  });

  test('open', async () => {
    const launch = vi.fn();
    commands.addCommand(Dask.launchLayout, { execute: launch });
    expect(commands.isVisible(CommandIDs.dashboardLayout)).toBe(true);
    await commands.execute(CommandIDs.dashboardLayout);
    expect(launch).toHaveBeenCalledTimes(1);
  });
});
