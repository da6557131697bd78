/**
 * Warnings before the batch system ends the session: one in good time, one at the last.
 */

import { Notification } from '@jupyterlab/apputils';

import { SessionModel } from './model';
import { duration } from './words';

export const SOON_S = 10 * 60;
export const LAST_S = 2 * 60;

/** Warn once each, and again where the walltime was lengthened meanwhile. */
export class WalltimeWarnings {
  constructor(
    private readonly _model: SessionModel,
    private readonly _saveAll: () => void
  ) {
    _model.changed.connect(() => this._look());
  }

  private _look(): void {
    const session = this._model.answer?.session;
    if (!session || session.state !== 'running' || session.time_left_s === null || this._model.isStopping) {
      this._say('');
      return;
    }
    const left_s = session.time_left_s - this._model.age_s;
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
    if (what === 'soon') {
      this._shown = Notification.warning(sentence, { autoClose: false });
    } else if (what === 'last') {
      this._shown = Notification.error(sentence, {
        autoClose: false,
        actions: [{ label: 'Save all', displayType: 'accent', callback: this._saveAll }]
      });
    }
  }

  private _said = '';
  private _shown = '';
}
