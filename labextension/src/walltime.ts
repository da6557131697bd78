/**
 * Warnings before the batch system ends the session: one in good time, one at the last.
 */

import { Notification } from '@jupyterlab/apputils';
import { IStateDB } from '@jupyterlab/statedb';

import { SessionModel } from './model';
import { NAMESPACE } from './tokens';
import { duration } from './words';

export const SOON_S = 10 * 60;
export const LAST_S = 2 * 60;

const WARNED_KEY = `${NAMESPACE}:warned`;

/** Warn once each, and again where the walltime was lengthened meanwhile. */
export class WalltimeWarnings {
  constructor(private readonly _options: WalltimeWarnings.IOptions) {
    void this._begin();
  }

  /** Who was warned in good time is not warned so again on a page that was loaded anew; at the last everybody is. */
  private async _begin(): Promise<void> {
    const { model, state } = this._options;
    const [kept] = await Promise.all([state?.fetch(WARNED_KEY).catch(() => undefined), model.first]);
    if ((kept as { session?: string } | undefined)?.session === model.which) {
      this._said = 'soon';
    }
    model.changed.connect(() => this._look());
    this._look();
  }

  private _look(): void {
    const { model } = this._options;
    const session = model.answer?.session;
    if (!session || !model.hasSession) {
      this._say('');
      return;
    }
    if (!['running', 'unknown'].includes(session.state) || session.time_left_s === null) {
      return; // how long it runs is not known for the moment
    }
    const left_s = session.time_left_s - model.age_s;
    if (left_s >= SOON_S) {
      this._say('');
    } else if (left_s >= LAST_S) {
      this._say('soon', `The session ${session.name} ends in ${duration(left_s)}. Save your notebooks.`);
    } else {
      this._say('last', `The session ${session.name} ends in ${duration(left_s)}. What is not saved then is lost.`);
    }
  }

  private _say(what: '' | 'soon' | 'last', sentence = ''): void {
    if (what === this._said) {
      return;
    }
    if (this._shown) {
      Notification.dismiss(this._shown);
    }
    this._said = what;
    this._shown = '';
    const { model, state, saveAll } = this._options;
    if (what === 'soon') {
      this._shown = Notification.warning(sentence, { autoClose: false });
      void state?.save(WARNED_KEY, { session: model.which });
    } else if (what === 'last') {
      this._shown = Notification.error(sentence, {
        autoClose: false,
        actions: [{ label: 'Save all', displayType: 'accent', callback: saveAll }]
      });
    } else {
      void state?.remove(WARNED_KEY);
    }
  }

  private _said = '';
  private _shown = '';
}

export namespace WalltimeWarnings {
  export interface IOptions {
    model: SessionModel;
    saveAll: () => void;
    /** What outlives the page; null: nothing does. */
    state: IStateDB | null;
  }
}
