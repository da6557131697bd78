/**
 * What one can do, by button, palette or keyboard: ask where something is left open, do it, tell how it went.
 */

import { JupyterFrontEnd } from '@jupyterlab/application';
import { MainAreaWidget, Notification, showErrorMessage } from '@jupyterlab/apputils';
import { refreshIcon } from '@jupyterlab/ui-components';
import { CommandRegistry } from '@lumino/commands';
import { JSONObject, ReadonlyPartialJSONObject, UUID } from '@lumino/coreutils';

import { Dask, DaskDashboard } from './dask';
import { askForScale, askForWorkers, askToStop } from './forms';
import { sessionIcon } from './icons';
import { SessionModel } from './model';
import { logTab, storyTab } from './story';
import { CommandIDs, ISession, IWorkersWanted } from './tokens';

/** As `SessionPanel` has it. */
export const PANEL_ID = 'hpclab-panel';

const TOAST_MS = 6000;

const JOB_ARGS = arguments_({ id: { type: 'string', description: 'The job; left out: the main job.' } });

/** Those that stand in the palette, in this order. */
export const PALETTE = [
  CommandIDs.openPanel,
  CommandIDs.addWorker,
  CommandIDs.scale,
  CommandIDs.dashboardLayout,
  CommandIDs.why,
  CommandIDs.log,
  CommandIDs.refresh,
  CommandIDs.startLocal,
  CommandIDs.stop
];

export function addCommands(options: ICommandsOptions): void {
  const { model, shell, dashboard, commands } = options;

  const hasSession = (): boolean => model.hasSession;
  const isRunning = (): boolean => hasSession() && model.answer?.session?.state === 'running';

  commands.addCommand(CommandIDs.openPanel, {
    label: 'Show the Session',
    caption: 'Workers, time left and cores of the session that this notebook runs in',
    icon: sessionIcon,
    describedBy: arguments_({}),
    execute: () => {
      shell.activateById(PANEL_ID);
    }
  });

  commands.addCommand(CommandIDs.addWorker, {
    label: 'Add Workers…',
    caption: 'Submit worker jobs that join this session',
    describedBy: arguments_({
      count: {
        type: 'integer',
        minimum: 1,
        description: 'How many worker jobs; left out: a form asks for all of this.'
      },
      cores: { type: 'string', description: 'Of each worker: 4' },
      memory: { type: 'string', description: 'Of each worker: 8G' },
      walltime: { type: 'string', description: 'Of each job: 1h' }
    }),
    isEnabled: hasSession,
    execute: async args => {
      const wanted = wantedIn(args);
      if (wanted) {
        return told(model.add(wanted));
      }
      const text = model.answer && (await askForWorkers(model.answer.defaults, typed => model.add(typed)));
      return text && told(Promise.resolve(text));
    }
  });

  commands.addCommand(CommandIDs.scale, {
    label: 'Scale the Session…',
    caption: 'Have so many workers, by submitting worker jobs or by retiring some',
    describedBy: arguments_({
      workers: { type: 'integer', minimum: 0, description: 'How many in all; left out: a form asks.' }
    }),
    isEnabled: hasSession,
    execute: async args => {
      const { joined, pending } = model.answer?.session?.workers ?? { joined: 0, pending: 0 };
      const workers = typeof args.workers === 'number' ? args.workers : await askForScale(joined + pending);
      return workers === null ? null : told(model.scale(workers));
    }
  });

  commands.addCommand(CommandIDs.retireWorker, {
    label: 'Retire the Worker',
    caption: 'A running worker job hands its data over and leaves; a queued one is cancelled',
    describedBy: {
      args: {
        type: 'object',
        properties: { id: { type: 'string', description: 'The worker job.' } },
        required: ['id']
      }
    },
    isEnabled: hasSession,
    execute: args => (typeof args.id === 'string' ? told(model.retire(args.id)) : null)
  });

  commands.addCommand(CommandIDs.why, {
    label: args => `Why: the Story of ${jobWords(args)}`,
    caption: 'What happened to the job, step by step',
    describedBy: JOB_ARGS,
    isEnabled: args => !!jobIn(args, model),
    execute: args => {
      const id = jobIn(args, model);
      show(shell, `hpclab-why-${id}`, () => storyTab(model, id));
    }
  });

  commands.addCommand(CommandIDs.log, {
    label: args => `Log of ${jobWords(args)}`,
    caption: 'The end of the job’s log',
    describedBy: JOB_ARGS,
    isEnabled: args => !!jobIn(args, model),
    execute: args => {
      const id = jobIn(args, model);
      show(shell, `hpclab-log-${id}`, () => logTab(model, id));
    }
  });

  commands.addCommand(CommandIDs.stop, {
    label: 'Stop the Session…',
    caption: 'Cancel all of its jobs, the one that this notebook runs in among them',
    describedBy: arguments_({}),
    isEnabled: hasSession,
    execute: async () => {
      const session = model.answer?.session;
      if (!session || !(await askToStop(session))) {
        return null;
      }
      return told(model.stop().then(jobs => stopWords(session, jobs)));
    }
  });

  commands.addCommand(CommandIDs.startLocal, {
    label: 'Start a Session on This Machine',
    caption: 'A scheduler and its workers, here',
    icon: sessionIcon,
    describedBy: arguments_({}),
    isEnabled: () => model.canStart && !model.isDoing('start'),
    isVisible: () => model.canStart,
    execute: () => told(model.startLocal().then(name => `The session ${name} starts on this machine.`))
  });

  commands.addCommand(CommandIDs.dashboardLayout, {
    label: 'Open Dask’s Plots',
    caption: 'Task stream, progress and workers’ memory in panes',
    describedBy: arguments_({}),
    isEnabled: () => !!model.answer?.dashboard && isRunning(),
    isVisible: () => commands.hasCommand(Dask.launchLayout),
    execute: () => dashboard.launchLayout()
  });

  commands.addCommand(CommandIDs.refresh, {
    label: 'Refresh the Session',
    caption: 'Look now how it is',
    icon: refreshIcon,
    describedBy: arguments_({}),
    execute: () => model.refresh()
  });

  // what is enabled depends on these only, and not every look changes them
  let before = '';
  model.changed.connect(() => {
    const now = [
      model.answer?.session?.state,
      model.answer?.dashboard,
      model.hasSession,
      model.canStart,
      model.isDoing('start')
    ].join();
    if (now !== before) {
      before = now;
      commands.notifyCommandChanged();
    }
  });
}

export interface ICommandsOptions {
  model: SessionModel;
  commands: CommandRegistry;
  shell: JupyterFrontEnd.IShell;
  dashboard: DaskDashboard;
}

/** Say how it went; the deed's words, or null. Never rejects: whoever pressed the button has been told. */
async function told(deed: Promise<string>): Promise<string | null> {
  try {
    const text = await deed;
    Notification.success(text, { autoClose: TOAST_MS });
    return text;
  } catch (problem) {
    const { message } = problem as Error;
    // a notification is cut off, and what to do next stands on the last line
    const [what] = message.split('\n');
    const all = { label: 'Details', callback: () => void showErrorMessage('Session', message) };
    Notification.error(what, { autoClose: false, actions: what === message ? [] : [all] });
    return null;
  }
}

function show(shell: JupyterFrontEnd.IShell, id: string, make: () => MainAreaWidget): void {
  const shown = [...shell.widgets('main')].some(widget => widget.id === id);
  if (!shown) {
    const widget = make();
    widget.id = id;
    shell.add(widget, 'main');
  }
  shell.activateById(id);
}

function wantedIn(args: ReadonlyPartialJSONObject): IWorkersWanted | null {
  if (typeof args.count !== 'number') {
    return null;
  }
  const wanted: IWorkersWanted = { count: args.count, request: UUID.uuid4() };
  for (const key of ['cores', 'memory', 'walltime'] as const) {
    const value = args[key];
    if (typeof value === 'string') {
      wanted[key] = value;
    }
  }
  return wanted;
}

function jobWords(args: ReadonlyPartialJSONObject): string {
  return typeof args.id === 'string' ? `Job ${args.id}` : 'the Main Job';
}

/** The job that is meant; empty: there is none. */
function jobIn(args: ReadonlyPartialJSONObject, model: SessionModel): string {
  if (typeof args.id === 'string') {
    return args.id;
  }
  const jobs = model.answer?.session?.jobs ?? [];
  return [...jobs].reverse().find(job => job.role === 'main')?.id ?? '';
}

function stopWords(session: ISession, jobs: string[]): string {
  const which = jobs.length > 5 ? `${jobs.length} jobs` : `${jobs.length === 1 ? 'job' : 'jobs'} ${jobs.join(', ')}`;
  return `The session ${session.name} ends: ${which} will be cancelled. This page then has no server any more.`;
}

function arguments_(properties: JSONObject): { args: JSONObject } {
  return { args: { type: 'object', properties } };
}
