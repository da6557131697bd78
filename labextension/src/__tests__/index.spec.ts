/** The plugins, in a JupyterLab that has only what they use of it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { ILabShell, ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, Notification } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStateDB, StateDB } from '@jupyterlab/statedb';
import { IStatusBar } from '@jupyterlab/statusbar';
import { CommandRegistry } from '@lumino/commands';
import { PromiseDelegate, Token } from '@lumino/coreutils';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { waitFor } from '@testing-library/dom';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import schema from '../../schema/plugin.json';
import { PALETTE, PANEL_ID } from '../commands';
import { Dask } from '../dask';
import plugins, { ISessionModel } from '../index';
import { SessionModel } from '../model';
import { CommandIDs, NAMESPACE } from '../tokens';
import { anAnswer, FakeServer } from './server';

let server: FakeServer;
let app: JupyterFrontEnd;
let model: SessionModel;
let left: { widget: Widget; rank?: number }[];
let activated: string[];
let restored: PromiseDelegate<void>;

beforeEach(() => {
  Notification.manager.dismiss();
  server = new FakeServer();
  server.say('GET session', anAnswer());
  left = [];
  activated = [];
  restored = new PromiseDelegate();
  app = {
    commands: new CommandRegistry(),
    serviceManager: { serverSettings: server.settings },
    restored: restored.promise,
    shell: {
      widgets: (area: string) => (area === 'left' ? left.map(({ widget }) => widget) : []).values(),
      add: (widget: Widget, _area: string, options: { rank?: number }) => left.push({ widget, rank: options.rank }),
      activateById: (id: string) => activated.push(id)
    }
  } as unknown as JupyterFrontEnd;
});

afterEach(() => {
  left.forEach(({ widget }) => widget.dispose());
  model?.dispose();
});

/** As JupyterLab does: what a plugin requires or would like, and is not there, is null. */
function activate(services = new Map<Token<unknown>, unknown>()): unknown[] {
  return plugins.map((plugin: JupyterFrontEndPlugin<unknown>) => {
    const tokens = [...(plugin.requires ?? []), ...(plugin.optional ?? [])] as Token<unknown>[];
    const told = plugin.activate(app, ...tokens.map(token => services.get(token) ?? null));
    if (plugin.provides) {
      services.set(plugin.provides, told);
      model = told as SessionModel;
    }
    return told;
  });
}

const service = <T>(token: Token<T>, value: unknown): [Token<unknown>, unknown] => [token, value];

describe('the plugins', () => {
  test('have ids of their own and say what they are for', () => {
    expect(new Set(plugins.map(({ id }) => id)).size).toBe(plugins.length);
    for (const { id, description, autoStart } of plugins) {
      expect(id.startsWith(`${NAMESPACE}:`)).toBe(true);
      expect(description).toBeTruthy();
      expect(autoStart).toBe(true);
    }
  });

  test('keep nobody waiting, and need nothing that an application may not have', async () => {
    const told = activate();
    expect(told.filter(value => value instanceof Promise)).toEqual([]);
    expect(told.filter(value => value instanceof SessionModel)).toHaveLength(1);
    restored.resolve();
    await model.first;
    expect(left).toMatchObject([{ widget: { id: PANEL_ID }, rank: 150 }]);
    expect(activated).toEqual([]);
  });

  test('have the settings that the schema says', () => {
    const ids = plugins.map(({ id }) => id.split(':')[1]);
    expect(ids.filter(id => existsSync(join(import.meta.dirname, `../../schema/${id}.json`)))).toEqual(['plugin']);
    expect(Object.keys(schema.properties)).toEqual(['interval_s', 'offersLayout']);
  });
});

test('the commands stand in the palette, and two of them on cards', () => {
  const palette = { addItem: vi.fn() };
  const launcher = { add: vi.fn() };
  activate(new Map([service(ICommandPalette, palette), service(ILauncher, launcher)]));
  expect(palette.addItem.mock.calls.map(([{ command }]) => command as string)).toEqual(PALETTE);
  const cards = launcher.add.mock.calls.map(([{ command }]) => command as string);
  expect(cards).toEqual([CommandIDs.openPanel, CommandIDs.startLocal]);
  expect(cards.filter(command => !app.commands.icon(command))).toEqual([]);
});

describe('the settings', () => {
  function settingsOf(values: Record<string, unknown>) {
    const loaded = {
      get: (key: string) => ({ composite: values[key] }),
      changed: new Signal<unknown, void>({})
    };
    return { registry: { load: () => Promise.resolve(loaded) }, loaded, values };
  }

  test('say how often to look, and may change', async () => {
    const { registry, loaded, values } = settingsOf({ interval_s: 7, offersLayout: true });
    activate(new Map([service(ISettingRegistry, registry)]));
    await waitFor(() => expect(model.interval_s).toBe(7));
    values.interval_s = 11;
    loaded.changed.emit();
    expect(model.interval_s).toBe(11);
  });

  test('may be broken', async () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    activate(new Map([service(ISettingRegistry, { load: () => Promise.reject(new Error('no such schema')) })]));
    await waitFor(() => expect(warn).toHaveBeenCalled());
    await model.first;
    expect(model.interval_s).toBe(2);
    warn.mockRestore();
  });

  test.each([true, false])('offersLayout: %j', async offers => {
    const { registry } = settingsOf({ interval_s: 2, offersLayout: offers });
    const populated = vi.fn();
    app.commands.addCommand(Dask.populate, { execute: populated });
    app.commands.addCommand(Dask.launchLayout, { execute: () => undefined });
    const sidebar = Object.assign(new Widget(), {
      dashboardLauncher: {
        input: {
          input: document.createElement('input'),
          urlInfo: { url: '', isActive: true },
          urlInfoChanged: new Signal({})
        }
      }
    });
    sidebar.id = Dask.sidebar;
    left.push({ widget: sidebar });
    activate(new Map([service(ISettingRegistry, registry)]));
    restored.resolve();
    await waitFor(() => expect(populated).toHaveBeenCalled());
    const shown = (): number => Notification.manager.notifications.length;
    await (offers ? waitFor(() => expect(shown()).toBe(1)) : model.refresh());
    expect(shown()).toBe(offers ? 1 : 0);
  });
});

describe('the panel', () => {
  interface ILayout {
    fresh?: boolean;
    mode?: string;
  }

  function open({ fresh = true, mode = 'multiple-document' }: ILayout = {}): { add: ReturnType<typeof vi.fn> } {
    const restorer = { add: vi.fn() };
    const shell = Object.assign(app.shell, { restored: Promise.resolve({ fresh }), mode });
    activate(new Map([service(ILabShell, shell), service(ILayoutRestorer, restorer)]));
    return restorer;
  }

  /** What came after all that is waited for has come, too. */
  async function settled(): Promise<void> {
    await model.first;
    await new Promise(resolve => setTimeout(resolve));
  }

  test('opens by itself at the first visit of a session, after what JupyterLab opens', async () => {
    open();
    await settled();
    expect(activated).toEqual([]);
    restored.resolve();
    await settled();
    expect(activated).toEqual([PANEL_ID]);
  });

  test('waits for the session', async () => {
    const release = server.hold('GET session');
    open();
    restored.resolve();
    await new Promise(resolve => setTimeout(resolve));
    expect(activated).toEqual([]);
    release();
    await settled();
    expect(activated).toEqual([PANEL_ID]);
  });

  test.each([
    ['a layout that was saved', { fresh: false }, anAnswer()],
    ['a page of one document', { mode: 'single-document' }, anAnswer()],
    ['no session', {}, anAnswer(null)]
  ])('stays as it is with %s', async (_what, layout, answer) => {
    server.say('GET session', answer);
    open(layout);
    restored.resolve();
    await settled();
    expect(activated).toEqual([]);
  });

  test('is put back where it was', () => {
    const restorer = open();
    expect(restorer.add).toHaveBeenCalledWith(left[0].widget, PANEL_ID);
  });
});

test('the status bar has the session as long as there is something to say', async () => {
  const registerStatusItem = vi.fn();
  activate(new Map([service(IStatusBar, { registerStatusItem })]));
  const [[, options]] = registerStatusItem.mock.calls as [string, IStatusBar.IItem][];
  expect(options.isActive!()).toBe(false);
  await model.first;
  expect(options.isActive!()).toBe(true);
  expect(options.activeStateChanged).toBe(model.changed);
  options.item.dispose();
});

test('the last warning saves all documents, and the first is kept', async () => {
  const saveAll = vi.fn();
  const state = new StateDB();
  app.commands.addCommand('docmanager:save-all', { execute: saveAll });
  server.say('GET session', anAnswer({ time_left_s: 300 }));
  activate(new Map([service(IStateDB, state)]));
  const actions = (): Notification.IAction[] => Notification.manager.notifications[0].options.actions ?? [];
  await waitFor(() => expect(actions()).toEqual([]));
  expect((await state.list('hpclab')).ids).toEqual(['hpclab:warned']);
  server.say('GET session', anAnswer({ time_left_s: 60 }));
  await model.refresh();
  actions()[0].callback(new MouseEvent('click'));
  expect(saveAll).toHaveBeenCalledTimes(1);
});

test('others may have the model by its token', () => {
  activate();
  expect(plugins.find(({ provides }) => provides === ISessionModel)?.id).toBe('hpclab:plugin');
});
