/**
 * dask-labextension, connected to this session: its URL box filled, its plots offered once.
 */

import { ILabShell } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { URLExt } from '@jupyterlab/coreutils';
import { IStateDB } from '@jupyterlab/statedb';
import { CommandRegistry } from '@lumino/commands';
import { ISignal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';

import { SessionModel } from './model';
import { NAMESPACE } from './tokens';

/** What of dask-labextension is used. */
export namespace Dask {
  export const populate = 'dask:populate-dashboard-url';
  export const launchLayout = 'dask:launch-layout';
  /** The sidebar's id, and the key under which it keeps its URL. */
  export const sidebar = 'dask-dashboard-launcher';
  /** Its panes' ids begin so. */
  export const pane = 'dask-dashboard-';

  export interface ISidebar extends Widget {
    dashboardLauncher?: { input?: IInput };
  }

  export interface IInput {
    /** The box that people type into. */
    input: HTMLInputElement;
    urlInfo: { url: string; isActive: boolean };
    urlInfoChanged: ISignal<unknown, unknown>;
  }
}

/**
 * It restores the URL of an earlier session while this runs, or empties its box if it comes second. So somebody has to
 * look again until all that is over.
 */
const SETTLED_S = 15;

const CONNECTED_KEY = `${NAMESPACE}:dask`;
const OFFERED_KEY = `${NAMESPACE}:layout`;

export class DaskDashboard {
  constructor(private readonly _options: DaskDashboard.IOptions) {}

  /** Connect it as soon as there is a dashboard. Once: afterwards the URL is the user's. */
  async connect(): Promise<void> {
    const { commands, model } = this._options;
    const url = await this._url();
    if (!commands.hasCommand(Dask.populate) || (await this._isUsersChoice(url))) {
      return;
    }
    let isUsers = false;
    const take = (): void => {
      isUsers = true;
    };
    const box = this._input()?.input;
    box?.addEventListener('input', take);
    for (let second = 0; second < SETTLED_S && !isUsers && !model.isDisposed; second++) {
      if (!this._isAt(url)) {
        await commands.execute(Dask.populate, { url });
      }
      await seconds(1);
    }
    box?.removeEventListener('input', take);
    await this._options.state?.save(CONNECTED_KEY, { session: model.which, url });
  }

  /** Ask once, of all sessions, whether its plots shall open. */
  async offerLayout(): Promise<void> {
    const { state } = this._options;
    await this._url();
    if (!this._options.commands.hasCommand(Dask.launchLayout) || (await state?.fetch(OFFERED_KEY))) {
      return;
    }
    await this._active();
    if (this._hasPanes()) {
      return;
    }
    Notification.info('Dask’s plots are at hand: task stream, progress and workers’ memory beside the notebook.', {
      autoClose: false,
      actions: [
        { label: 'Open them', displayType: 'accent', callback: () => void this.launchLayout() },
        { label: 'No, thanks', callback: () => undefined }
      ]
    });
    await state?.save(OFFERED_KEY, { offered: true });
  }

  async launchLayout(): Promise<void> {
    const { commands } = this._options;
    if (!commands.isEnabled(Dask.launchLayout)) {
      await commands.execute(Dask.populate, { url: await this._url() });
      for (let second = 0; second < SETTLED_S && !commands.isEnabled(Dask.launchLayout); second++) {
        await seconds(1);
      }
    }
    await commands.execute(Dask.launchLayout);
  }

  /** Of this session's dashboard; waits until there is one. */
  private _url(): Promise<string> {
    const { model, baseUrl } = this._options;
    return new Promise(resolve => {
      const look = (): void => {
        if (model.answer?.dashboard) {
          model.changed.disconnect(look);
          resolve(URLExt.join(baseUrl, model.answer.dashboard));
        }
      };
      model.changed.connect(look);
      look();
    });
  }

  /** Waits until it has found a dashboard at its URL. */
  private _active(): Promise<void> {
    const input = this._input();
    return new Promise(resolve => {
      const look = (): void => {
        if (input?.urlInfo.isActive) {
          input.urlInfoChanged.disconnect(look);
          resolve();
        }
      };
      input?.urlInfoChanged.connect(look);
      look();
    });
  }

  /** It was connected to this session already, on this page before its reload, and has been changed since. */
  private async _isUsersChoice(url: string): Promise<boolean> {
    const { model, state } = this._options;
    const connected = (await state?.fetch(CONNECTED_KEY)) as { session?: string } | undefined;
    const kept = (await state?.fetch(Dask.sidebar)) as { url?: string } | undefined;
    return connected?.session === model.which && !!kept?.url && !isSame(kept.url, url);
  }

  private _isAt(url: string): boolean {
    const input = this._input();
    return !!input && isSame(input.urlInfo.url, url) && isSame(input.input.value, url);
  }

  private _input(): Dask.IInput | undefined {
    const { shell } = this._options;
    for (const widget of [...shell.widgets('left'), ...shell.widgets('right')]) {
      if (widget.id === Dask.sidebar) {
        return (widget as Dask.ISidebar).dashboardLauncher?.input;
      }
    }
    return undefined;
  }

  private _hasPanes(): boolean {
    return [...this._options.shell.widgets('main')].some(widget => widget.id.startsWith(Dask.pane));
  }
}

export namespace DaskDashboard {
  export interface IOptions {
    model: SessionModel;
    commands: CommandRegistry;
    shell: Pick<ILabShell, 'widgets'>;
    /** The server's, which all routes are under. */
    baseUrl: string;
    /** What outlives the page; null: nothing does. */
    state: IStateDB | null;
  }
}

function isSame(one: string, other: string): boolean {
  return one.replace(/\/+$/, '') === other.replace(/\/+$/, '');
}

function seconds(number: number): Promise<void> {
  return new Promise(resolve => window.setTimeout(resolve, number * 1000));
}
