/** The dialogs: how many workers, of what size; how many in all; whether really to stop. */
import * as React from 'react';
import { Dialog, showDialog } from '@jupyterlab/apputils';
import { ReactWidget } from '@jupyterlab/ui-components';
import { UUID } from '@lumino/coreutils';

import { NoAnswer } from './request';
import { IAnswer, IJob, ISession, IWorkersWanted } from './tokens';
import { isOver } from './workers';

type Defaults = IAnswer['defaults'];

/** As it stands in the fields, also where it is not a number yet. */
type Typed = Record<keyof Defaults, string>;

/**
 * Ask how many workers and of what size, and `add` them; what it said, or null: the dialog was left.
 *
 * When they cannot be had, the form comes again, with what was typed and with what was wrong.
 */
export async function askForWorkers(
  defaults: Defaults,
  add: (wanted: IWorkersWanted) => Promise<string>
): Promise<string | null> {
  let typed: Typed = { ...defaults, count: String(defaults.count) };
  let request = UUID.uuid4();
  let problem: Error | null = null;
  for (;;) {
    const values = await typedWorkers(typed, problem?.message ?? '');
    if (!values) {
      return null;
    }
    // what became of a click that had no answer nobody knows: the same again is the same click
    if (!(problem instanceof NoAnswer && sameWorkers(values, typed))) {
      request = UUID.uuid4();
    }
    typed = values;
    try {
      return await add({ ...typed, count: numberIn(typed.count), request });
    } catch (error) {
      problem = error as Error;
    }
  }
}

async function typedWorkers(before: Typed, problem: string): Promise<Typed | null> {
  const body = new Form<Typed>(before, (values, change) => (
    <WorkersFields values={values} change={change} problem={problem} />
  ));
  const { button } = await showDialog({
    title: 'Add worker',
    body,
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Add' })],
    focusNodeSelector: 'input'
  });
  return button.accept ? body.getValue() : null;
}

function sameWorkers(one: Typed, other: Typed): boolean {
  return (['count', 'cores', 'memory', 'walltime'] as const).every(key => one[key] === other[key]);
}

/** How many workers there shall be; null: the dialog was left. */
export async function askForScale(current: number): Promise<number | null> {
  const body = new Form({ workers: String(current) }, (values, change) => (
    <div className="hpclab-Form">
      <NumberField
        word="Workers"
        min={0}
        value={values.workers}
        change={workers => {
          change({ workers });
        }}
      />
      <p className="hpclab-Form-note">{scaleWords(current, numberIn(values.workers))}</p>
    </div>
  ));
  const { button } = await showDialog({
    title: 'Scale the session',
    body,
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Scale' })],
    focusNodeSelector: 'input'
  });
  return button.accept ? numberIn(body.getValue().workers) : null;
}

/** Whether really to stop, after it was told what ends then. */
export async function askToStop(session: ISession): Promise<boolean> {
  const { button } = await showDialog({
    title: `Stop session ${session.name}?`,
    body: ReactWidget.create(<p className="hpclab-Form-note">{stopWords(session)}</p>),
    buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Stop session' })],
    defaultButton: 0
  });
  return button.accept;
}

type Fields<T> = (values: T, change: (changed: Partial<T>) => void) => React.JSX.Element;

/** A dialog's body: values, and the fields that show and change them. */
class Form<T extends object> extends ReactWidget {
  constructor(values: T, fields: Fields<T>) {
    super();
    this._values = values;
    this._fields = fields;
  }

  getValue(): T {
    return this._values;
  }

  protected override render(): React.JSX.Element {
    return this._fields(this._values, changed => {
      this._values = { ...this._values, ...changed };
      this.update();
    });
  }

  private _values: T;
  private readonly _fields: Fields<T>;
}

interface IWorkersFieldsProps {
  values: Typed;
  change: (changed: Partial<Typed>) => void;
  /** Why the last try failed; empty: there was none. */
  problem: string;
}

function WorkersFields({ values, change, problem }: IWorkersFieldsProps): React.JSX.Element {
  const text = (key: 'cores' | 'memory' | 'walltime', word: string, example: string): React.JSX.Element => (
    <label>
      <span>{word}</span>
      <input
        className="jp-mod-styled"
        type="text"
        required
        spellCheck={false}
        autoComplete="off"
        placeholder={example}
        // not "value": the form is drawn anew a moment later, and the cursor would jump
        defaultValue={values[key]}
        onChange={event => {
          change({ [key]: event.target.value });
        }}
      />
    </label>
  );
  return (
    <div className="hpclab-Form">
      {problem && (
        <p className="hpclab-Form-problem" role="alert">
          {problem}
        </p>
      )}
      <NumberField
        word="Jobs"
        min={1}
        value={values.count}
        change={count => {
          change({ count });
        }}
      />
      {text('cores', 'Cores', '4')}
      {text('memory', 'Memory', '8G')}
      {text('walltime', 'Walltime', '1h')}
      <p className="hpclab-Form-note">{wantedWords(values)}</p>
    </div>
  );
}

interface INumberFieldProps {
  word: string;
  min: number;
  value: string;
  change: (value: string) => void;
}

function NumberField({ word, min, value, change }: INumberFieldProps): React.JSX.Element {
  return (
    <label>
      <span>{word}</span>
      <input
        className="jp-mod-styled"
        type="number"
        required
        min={min}
        step={1}
        defaultValue={value}
        onChange={event => {
          change(event.target.value);
        }}
      />
    </label>
  );
}

/** NaN: it is none; nothing at all is not 0. */
function numberIn(text: string): number {
  return text.trim() ? Number(text) : NaN;
}

export function wantedWords({ count: typed, cores, memory, walltime }: Typed): string {
  const count = numberIn(typed);
  if (!Number.isInteger(count) || count < 1) {
    return 'How many jobs is a whole number, 1 or more.';
  }
  const jobs = count === 1 ? 'one job' : `${count} jobs, each`;
  return `Asks the batch system for ${jobs} with ${cores || '…'} ${cores === '1' ? 'core' : 'cores'} and ${memory || '…'} of memory per worker, for ${walltime || '…'}.`;
}

function scaleWords(current: number, wanted: number): string {
  if (!Number.isInteger(wanted) || wanted < 0) {
    return 'How many workers is a whole number, 0 or more.';
  }
  if (wanted < current) {
    return 'Queued ones are cancelled first; then workers hand their data over and leave.';
  }
  return wanted > current ? 'New worker jobs are submitted, of the size that the last one had.' : 'As it is now.';
}

/** "This cancels the main job 1 on node17 and 3 worker jobs; notebooks that run here end." */
export function stopWords({ jobs }: ISession): string {
  const left = jobs.filter(job => !isOver(job));
  const mains = left.filter(job => job.role === 'main').map(mainWords);
  const workers = left.filter(job => job.role === 'worker').length;
  const cancelled = [...mains, ...(workers ? [workers === 1 ? 'one worker job' : `${workers} worker jobs`] : [])];
  return cancelled.length
    ? `This cancels ${cancelled.join(' and ')}; notebooks that run here end.`
    : 'Nothing of it is left in the queue; notebooks that run here end.';
}

function mainWords({ id, node }: IJob): string {
  return `the main job ${id}${node ? ` on ${node}` : ''}`;
}
