/** With a stand-in for dask-labextension; the real one is in `tests/end_to_end/test_panel.py`. */
import { Notification } from '@jupyterlab/apputils';
import { StateDB } from '@jupyterlab/statedb';
import { CommandRegistry } from '@lumino/commands';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { Dask, DaskDashboard } from '../dask';
import { SessionModel } from '../model';
import { IAnswer } from '../tokens';
import { anAnswer, FakeServer } from './server';

const OURS = 'http://lab.test/proxy/hpclab/';
const STALE = 'http://lab.test/proxy/9999/';

/** What of dask-labextension hpclab meets. */
class Sidebar extends Widget implements Dask.ISidebar {
  constructor(readonly commands: CommandRegistry) {
    super();
    this.id = Dask.sidebar;
    commands.addCommand(Dask.populate, { execute: args => this.goTo(args.url as string) });
    commands.addCommand(Dask.launchLayout, {
      isEnabled: () => this.dashboardLauncher.input.urlInfo.isActive,
      execute: () => void this.layouts++
    });
  }

  readonly dashboardLauncher = {
    input: {
      input: document.createElement('input'),
      urlInfo: { url: '', isActive: false },
      urlInfoChanged: new Signal<unknown, unknown>(this)
    }
  };
  visited: string[] = [];
  layouts = 0;
  /** A dashboard answers at its URL. */
  isAnswered = true;

  goTo(url: string): void {
    const { input } = this.dashboardLauncher;
    this.visited.push(url);
    input.input.value = url;
    input.urlInfo = { url, isActive: this.isAnswered };
    input.urlInfoChanged.emit(undefined);
  }

  get url(): string {
    return this.dashboardLauncher.input.urlInfo.url;
  }

  type(url: string): void {
    this.dashboardLauncher.input.input.value = url;
    this.dashboardLauncher.input.input.dispatchEvent(new Event('input'));
  }
}

let server: FakeServer;
let model: SessionModel;
let commands: CommandRegistry;
let sidebar: Sidebar;
let panes: Widget[];
let state: StateDB;
let dashboard: DaskDashboard;

beforeEach(() => {
  vi.useFakeTimers();
  Notification.manager.dismiss();
  server = new FakeServer();
  server.say('GET session', anAnswer());
  model = new SessionModel({ settings: server.settings });
  commands = new CommandRegistry();
  sidebar = new Sidebar(commands);
  panes = [];
  state = new StateDB();
  dashboard = aDashboard(state);
});

afterEach(() => {
  model.dispose();
  vi.useRealTimers();
});

function aDashboard(db: StateDB | null): DaskDashboard {
  const areas: Record<string, Widget[]> = { left: [new Widget()], right: [sidebar] };
  const shell = { widgets: (area?: string) => (area === 'main' ? panes : (areas[area!] ?? [])).values() };
  return new DaskDashboard({ model, commands, shell, baseUrl: 'http://lab.test/', state: db });
}

const pass = (seconds: number): Promise<unknown> => vi.advanceTimersByTimeAsync(seconds * 1000);

async function hear(answer: IAnswer): Promise<void> {
  server.say('GET session', answer);
  void model.refresh();
  await pass(0.1);
}

const offers = (): number => Notification.manager.notifications.length;

function press(label: string): void {
  const [{ options }] = Notification.manager.notifications;
  options.actions!.find(action => action.label === label)!.callback(new MouseEvent('click'));
}

describe('its URL', () => {
  test('is filled in as soon as there is a dashboard, and not before', async () => {
    void dashboard.connect();
    await hear(anAnswer({}, { dashboard: '' }));
    await pass(30);
    expect(sidebar.visited).toEqual([]);
    await hear(anAnswer());
    expect(sidebar.url).toBe(OURS);
  });

  test('is left where it is once it is right', async () => {
    void dashboard.connect();
    await hear(anAnswer());
    await pass(30);
    expect(sidebar.visited).toEqual([OURS]);
  });

  test('is set again where that of an earlier session is restored meanwhile', async () => {
    void dashboard.connect();
    await hear(anAnswer());
    await pass(5);
    sidebar.goTo(STALE);
    await pass(2);
    expect(sidebar.url).toBe(OURS);
    sidebar.dashboardLauncher.input.input.value = '';
    await pass(2);
    expect(sidebar.dashboardLauncher.input.input.value).toBe(OURS);
  });

  test('may end without its slash', async () => {
    void dashboard.connect();
    await hear(anAnswer());
    sidebar.goTo(OURS.replace(/\/$/, ''));
    await pass(5);
    expect(sidebar.visited).toHaveLength(2);
  });

  test('is the user’s from the first key on', async () => {
    void dashboard.connect();
    await hear(anAnswer());
    sidebar.type('http://elsewhere');
    sidebar.goTo('http://elsewhere');
    await pass(5);
    expect(sidebar.url).toBe('http://elsewhere');
  });

  test('is the user’s after a while', async () => {
    const connected = vi.fn();
    void dashboard.connect().then(connected);
    await hear(anAnswer());
    await pass(20);
    expect(connected).toHaveBeenCalled();
    sidebar.goTo('http://elsewhere');
    await pass(30);
    expect(sidebar.url).toBe('http://elsewhere');
  });

  test('is the user’s on the same page loaded anew', async () => {
    void dashboard.connect();
    await hear(anAnswer());
    await pass(20);
    await state.save(Dask.sidebar, { url: 'http://elsewhere' });
    sidebar.visited = [];
    void aDashboard(state).connect();
    await pass(20);
    expect(sidebar.visited).toEqual([]);
  });

  test('is ours again in another session, be its name the same', async () => {
    void dashboard.connect();
    await hear(anAnswer());
    await pass(20);
    await state.save(Dask.sidebar, { url: STALE });
    sidebar.goTo(STALE);
    await hear(anAnswer({ created: 1800000000 }));
    void aDashboard(state).connect();
    await pass(1);
    expect(sidebar.url).toBe(OURS);
  });

  test('is filled in where nothing outlives the page, too', async () => {
    void aDashboard(null).connect();
    await hear(anAnswer());
    expect(sidebar.url).toBe(OURS);
  });

  test('is nobody’s where dask-labextension is not installed', async () => {
    commands = new CommandRegistry();
    const done = vi.fn();
    void aDashboard(state).connect().then(done);
    await hear(anAnswer());
    expect(done).toHaveBeenCalled();
  });

  test('is not set any more on a page that goes', async () => {
    void dashboard.connect();
    await hear(anAnswer());
    model.dispose();
    sidebar.goTo(STALE);
    await pass(20);
    expect(sidebar.url).toBe(STALE);
  });
});

describe('its plots', () => {
  async function offered(): Promise<void> {
    void dashboard.offerLayout();
    await hear(anAnswer());
  }

  test('are offered once it has found its dashboard', async () => {
    await offered();
    expect(offers()).toBe(0);
    sidebar.goTo(OURS);
    await pass(0.1);
    expect(offers()).toBe(1);
  });

  test('open at a click', async () => {
    sidebar.goTo(OURS);
    await offered();
    press('Open them');
    await pass(0.1);
    expect(sidebar.layouts).toBe(1);
  });

  test('stay away at another', async () => {
    sidebar.goTo(OURS);
    await offered();
    press('No, thanks');
    await pass(0.1);
    expect(sidebar.layouts).toBe(0);
  });

  test('are offered once, of all sessions', async () => {
    sidebar.goTo(OURS);
    await offered();
    Notification.manager.dismiss();
    await hear(anAnswer({ name: 'new-one' }));
    await aDashboard(state).offerLayout();
    expect(offers()).toBe(0);
  });

  test('are not offered where some are open', async () => {
    const pane = new Widget();
    pane.id = 'dask-dashboard-launcher:/individual-progress';
    panes.push(pane);
    sidebar.goTo(OURS);
    await offered();
    expect(offers()).toBe(0);
  });

  test('are not offered where dask-labextension is not installed', async () => {
    commands = new CommandRegistry();
    dashboard = aDashboard(state);
    sidebar.goTo(OURS);
    await offered();
    expect(offers()).toBe(0);
  });

  test('wait for the dashboard to answer', async () => {
    sidebar.isAnswered = false;
    await hear(anAnswer());
    void dashboard.launchLayout();
    await pass(3);
    expect([sidebar.url, sidebar.layouts]).toEqual([OURS, 0]);
    sidebar.isAnswered = true;
    sidebar.goTo(OURS);
    await pass(2);
    expect(sidebar.layouts).toBe(1);
  });
});
