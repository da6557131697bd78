/**
 * The plugins, small ones, so that each can be switched off by itself. None waits in `activate`, and what JupyterLab's
 * other applications do not have may be missing.
 */

import { ILabShell, ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStateDB } from '@jupyterlab/statedb';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Token } from '@lumino/coreutils';

import { addCommands, PALETTE, PANEL_ID } from './commands';
import { DaskDashboard } from './dask';
import { SessionModel } from './model';
import { SessionPanel } from './panel';
import { SessionStatus } from './statusbar';
import { CommandIDs, NAMESPACE } from './tokens';
import { WalltimeWarnings } from './walltime';

const SETTINGS_ID = `${NAMESPACE}:plugin`;
const CATEGORY = 'Session';

export const ISessionModel = new Token<SessionModel>(
  `${NAMESPACE}:ISessionModel`,
  'The session that this notebook runs in.'
);

const session: JupyterFrontEndPlugin<SessionModel> = {
  id: SETTINGS_ID,
  description: 'Knows the session, and changes it.',
  autoStart: true,
  provides: ISessionModel,
  optional: [ISettingRegistry],
  activate: (app: JupyterFrontEnd, settings: ISettingRegistry | null): SessionModel => {
    const model = new SessionModel({ settings: app.serviceManager.serverSettings });
    model.start();
    void settings?.load(SETTINGS_ID).then(
      loaded => {
        const apply = (): void => {
          model.interval_s = loaded.get('interval_s').composite as number;
        };
        loaded.changed.connect(apply);
        apply();
      },
      (reason: unknown) => console.warn('hpclab goes on with its default settings:', reason)
    );
    return model;
  }
};

const commands: JupyterFrontEndPlugin<void> = {
  id: `${NAMESPACE}:commands`,
  description: 'The commands, in palette and launcher, and Dask’s dashboard connected.',
  autoStart: true,
  requires: [ISessionModel],
  optional: [ICommandPalette, ILauncher, IStateDB, ISettingRegistry],
  activate: (
    app: JupyterFrontEnd,
    model: SessionModel,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    state: IStateDB | null,
    settings: ISettingRegistry | null
  ): void => {
    const dashboard = new DaskDashboard({
      model,
      commands: app.commands,
      shell: app.shell,
      baseUrl: app.serviceManager.serverSettings.baseUrl,
      state
    });
    addCommands({ model, commands: app.commands, shell: app.shell, dashboard });
    PALETTE.forEach((command, rank) => palette?.addItem({ command, category: CATEGORY, rank }));
    launcher?.add({ command: CommandIDs.openPanel, category: CATEGORY, rank: 1 });
    launcher?.add({ command: CommandIDs.startLocal, category: CATEGORY, rank: 2 });
    void app.restored.then(async () => {
      const loaded = await settings?.load(SETTINGS_ID).catch(() => undefined);
      const offers = loaded?.get('offersLayout').composite ?? true;
      await Promise.all([dashboard.connect(), offers && dashboard.offerLayout()]);
    });
  }
};

const panel: JupyterFrontEndPlugin<void> = {
  id: `${NAMESPACE}:panel`,
  description: 'The session panel.',
  autoStart: true,
  requires: [ISessionModel],
  optional: [ILayoutRestorer, ILabShell],
  activate: (
    app: JupyterFrontEnd,
    model: SessionModel,
    restorer: ILayoutRestorer | null,
    labShell: ILabShell | null
  ): void => {
    const widget = new SessionPanel(model, app.commands);
    restorer?.add(widget, PANEL_ID);
    app.shell.add(widget, 'left', { rank: 150 });
    if (labShell) {
      // at a first visit; later it is as it was left. After all that JupyterLab itself opens then
      void Promise.all([labShell.restored, model.first, app.restored]).then(([layout, { session }]) => {
        if (layout.fresh && session && labShell.mode !== 'single-document') {
          labShell.activateById(widget.id);
        }
      });
    }
  }
};

const status: JupyterFrontEndPlugin<void> = {
  id: `${NAMESPACE}:status`,
  description: 'The session on one line, in the status bar.',
  autoStart: true,
  requires: [ISessionModel],
  optional: [IStatusBar],
  activate: (app: JupyterFrontEnd, model: SessionModel, statusBar: IStatusBar | null): void => {
    if (!statusBar) {
      return;
    }
    const item = new SessionStatus(model, () => void app.commands.execute(CommandIDs.openPanel));
    statusBar.registerStatusItem(`${NAMESPACE}:status`, {
      item,
      align: 'left',
      rank: 3,
      isActive: () => item.text !== '',
      activeStateChanged: model.changed
    });
  }
};

const walltime: JupyterFrontEndPlugin<void> = {
  id: `${NAMESPACE}:walltime`,
  description: 'Warns before the batch system ends the session.',
  autoStart: true,
  requires: [ISessionModel],
  optional: [IStateDB],
  activate: (app: JupyterFrontEnd, model: SessionModel, state: IStateDB | null): void => {
    new WalltimeWarnings({ model, state, saveAll: () => void app.commands.execute('docmanager:save-all') });
  }
};

export default [session, commands, panel, status, walltime];
