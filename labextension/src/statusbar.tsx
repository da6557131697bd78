/**
 * The session on one line, in the status bar. A click opens the panel.
 */

import { TextItem } from '@jupyterlab/statusbar';
import { ReactWidget, UseSignal } from '@jupyterlab/ui-components';
import * as React from 'react';

import { SessionModel } from './model';
import { summary } from './words';

export class SessionStatus extends ReactWidget {
  constructor(
    private readonly _model: SessionModel,
    private readonly _open: () => void
  ) {
    super();
    this.addClass('jp-mod-highlighted');
  }

  /** Empty: there is nothing to say. */
  get text(): string {
    return summary(this._model.answer, this._model.age_s, this._model.problem !== null);
  }

  protected render(): JSX.Element {
    return (
      <UseSignal signal={this._model.changed}>
        {() => (
          <TextItem
            source={this.text}
            title={`The session ${this._model.answer?.session?.name ?? ''}: open its panel`}
            role="button"
            tabIndex={0}
            onClick={this._open}
            onKeyDown={event => {
              if (event.key === 'Enter' || event.key === ' ') {
                event.preventDefault();
                this._open();
              }
            }}
          />
        )}
      </UseSignal>
    );
  }
}
