import { Dialog } from '@jupyterlab/apputils';
import { fireEvent, waitFor } from '@testing-library/dom';
import { afterEach, describe, expect, test, vi } from 'vitest';

import { askForScale, askForWorkers, askToStop, stopWords, wantedWords } from '../forms';
import { NoAnswer, Problem } from '../request';
import { IWorkersWanted } from '../tokens';
import { anAnswer } from './server';

const DEFAULTS = anAnswer().defaults;
const SESSION = anAnswer().session!;

afterEach(() => {
  vi.unstubAllGlobals();
  Dialog.flush();
  document.body.replaceChildren();
});

const dialog = (): HTMLElement => document.querySelector<HTMLElement>('.jp-Dialog')!;
const field = (word: string): HTMLInputElement =>
  [...dialog().querySelectorAll('label')].find(({ textContent }) => textContent === word)!.querySelector('input')!;
const typed = (): string[] => [...dialog().querySelectorAll('input')].map(({ value }) => value);
const note = (): string => dialog().querySelector('.hpclab-Form-note')!.textContent;
const problem = (): string => dialog().querySelector('[role=alert]')?.textContent ?? '';

/** The dialog is there, and shows its body. */
async function open(): Promise<void> {
  await waitFor(() => expect(document.querySelector('.jp-Dialog .hpclab-Form-note')).not.toBeNull());
}

/** The form has come again, with a word about the last try. */
async function openAgain(word: string): Promise<void> {
  await waitFor(() => expect(document.querySelector('.jp-Dialog [role=alert]')?.textContent).toContain(word));
}

function type(word: string, text: string): void {
  fireEvent.change(field(word), { target: { value: text } });
}

function press(label: string): void {
  fireEvent.click([...dialog().querySelectorAll('button')].find(({ textContent }) => textContent === label)!);
}

/** Says the next of these, or rejects with it; and what it was asked for. */
function desk(...answers: (string | Error)[]): (wanted: IWorkersWanted) => Promise<string> {
  return vi.fn(() => {
    const answer = answers.shift()!;
    return typeof answer === 'string' ? Promise.resolve(answer) : Promise.reject(answer);
  });
}

const asked = (add: (wanted: IWorkersWanted) => Promise<string>): IWorkersWanted[] =>
  vi.mocked(add).mock.calls.map(([wanted]) => wanted);

const refusal = (message: string): Problem => new Problem(400, { error: 'ConfigError', message });

describe('the form for new workers', () => {
  test('shows what the last one had, and asks for that', async () => {
    const add = desk('submitted job 5');
    const done = askForWorkers(DEFAULTS, add);
    await open();
    expect(typed()).toEqual(['1', '2', '4G', '1:00:00']);
    expect(note()).toBe('Asks the batch system for one job with 2 cores and 4G of memory per worker, for 1:00:00.');
    press('Add');
    expect(await done).toBe('submitted job 5');
    expect(asked(add)).toEqual([{ ...DEFAULTS, request: expect.stringMatching(/.{16}/) as string }]);
  });

  test('asks for what was typed, and says so while one types', async () => {
    const add = desk('submitted');
    const done = askForWorkers(DEFAULTS, add);
    await open();
    type('Jobs', '3');
    type('Cores', '8');
    type('Memory', '16G');
    type('Walltime', '2h');
    await waitFor(() =>
      expect(note()).toBe('Asks the batch system for 3 jobs, each with 8 cores and 16G of memory per worker, for 2h.')
    );
    press('Add');
    await done;
    expect(asked(add)).toMatchObject([{ count: 3, cores: '8', memory: '16G', walltime: '2h' }]);
  });

  test('asks for nothing where it is left', async () => {
    const add = desk();
    const done = askForWorkers(DEFAULTS, add);
    await open();
    type('Jobs', '3');
    press('Cancel');
    expect(await done).toBeNull();
    expect(asked(add)).toEqual([]);
  });

  test('comes again after a refusal, with all that was typed and with why', async () => {
    const add = desk(
      refusal('count: a whole number from 1 to 10000, not 1.5'),
      refusal('memory: what is much?'),
      'yes'
    );
    const done = askForWorkers(DEFAULTS, add);
    await open();
    expect(problem()).toBe('');
    type('Jobs', '1.5');
    type('Memory', 'much');
    press('Add');
    await openAgain('count: a whole number from 1 to 10000, not 1.5');
    expect(typed()).toEqual(['1.5', '2', 'much', '1:00:00']);
    type('Jobs', '2');
    press('Add');
    await openAgain('memory: what is much?');
    expect(typed()).toEqual(['2', '2', 'much', '1:00:00']);
    type('Memory', '16G');
    press('Add');
    expect(await done).toBe('yes');
    expect(asked(add).map(({ count, memory }) => [count, memory])).toEqual([
      [1.5, 'much'],
      [2, 'much'],
      [2, '16G']
    ]);
    expect(document.querySelector('.jp-Dialog')).toBeNull();
  });

  test('can be left after a refusal', async () => {
    const add = desk(refusal('no'));
    const done = askForWorkers(DEFAULTS, add);
    await open();
    press('Add');
    await openAgain('no');
    press('Cancel');
    expect(await done).toBeNull();
  });

  test('shows the words of a refusal as they were said, never as HTML', async () => {
    const html = '<img src=x onerror="boom()"><b>no</b>';
    const done = askForWorkers({ ...DEFAULTS, memory: html }, desk(refusal(html)));
    await open();
    press('Add');
    await openAgain(html);
    expect(dialog().querySelector('img, b')).toBeNull();
    press('Cancel');
    await done;
  });

  test.each([
    ['the same again after no answer is the same click', new NoAnswer(''), null, true],
    ['something else after no answer is another', new NoAnswer(''), '16G', false],
    ['the same again after a refusal is another, for circumstances may have changed', refusal('full'), null, false]
  ])('%s', async (_what, error, memory, isSame) => {
    const add = desk(error, 'submitted');
    const done = askForWorkers(DEFAULTS, add);
    await open();
    press('Add');
    await openAgain(error.message);
    if (memory) {
      type('Memory', memory);
    }
    press('Add');
    await done;
    const [first, second] = asked(add);
    expect(first.request === second.request).toBe(isSame);
  });

  test('never takes an empty number for none', async () => {
    const add = desk('submitted');
    const done = askForWorkers(DEFAULTS, add);
    await open();
    type('Jobs', '');
    await waitFor(() => expect(note()).toBe('How many jobs is a whole number, 1 or more.'));
    press('Add');
    await done;
    expect(asked(add)[0].count).toBeNaN();
  });

  test('lets one type without taking it back for a moment', async () => {
    const done = askForWorkers(DEFAULTS, desk());
    await open();
    type('Memory', '16G'); // a field that is set back, and forth again, loses the cursor's place
    expect(field('Memory').value).toBe('16G');
    press('Cancel');
    await done;
  });

  test('gives its fields to the keyboard first', async () => {
    const onceIdle: (() => void)[] = []; // a browser is idle when it has drawn
    vi.stubGlobal('requestIdleCallback', (work: () => void) => onceIdle.push(work));
    const done = askForWorkers(DEFAULTS, desk());
    await open();
    onceIdle.forEach(work => {
      work();
    });
    await waitFor(() => expect(document.activeElement).toBe(field('Jobs')));
    press('Cancel');
    await done;
  });
});

test.each([
  [{ count: '1', cores: '1' }, 'Asks the batch system for one job with 1 core and 4G'],
  [{ count: '20', cores: '' }, 'Asks the batch system for 20 jobs, each with … cores'],
  [{ count: '0' }, 'How many jobs'],
  [{ count: '1.5' }, 'How many jobs'],
  [{ count: '' }, 'How many jobs']
])('what is asked for reads well: %j', (typed, words) => {
  expect(wantedWords({ ...DEFAULTS, ...typed })).toContain(words);
});

describe('the form for how many', () => {
  test.each([
    ['7', 7, 'New worker jobs are submitted, of the size that the last one had.'],
    ['0', 0, 'Queued ones are cancelled first; then workers hand their data over and leave.'],
    ['4', 4, 'As it is now.'],
    ['', NaN, 'How many workers is a whole number, 0 or more.'],
    ['2.5', 2.5, 'How many workers is a whole number, 0 or more.']
  ])('says what %s would do, and gives it', async (text, workers, words) => {
    const done = askForScale(4);
    await open();
    expect(typed()).toEqual(['4']);
    type('Workers', text);
    await waitFor(() => expect(note()).toBe(words));
    press('Scale');
    expect(await done).toBe(workers);
  });

  test('gives nothing where it is left', async () => {
    const done = askForScale(4);
    await open();
    type('Workers', '0');
    press('Cancel');
    expect(await done).toBeNull();
  });
});

describe('the question before a stop', () => {
  test('says what ends, and takes a yes', async () => {
    const done = askToStop(SESSION);
    await open();
    expect(dialog().textContent).toContain('Stop session calm-otter?');
    expect(note()).toBe('This cancels the main job 1 on node17 and 2 worker jobs; notebooks that run here end.');
    press('Stop session');
    expect(await done).toBe(true);
  });

  test('takes Enter for a no', async () => {
    const done = askToStop(SESSION);
    await open();
    fireEvent.keyDown(dialog(), { key: 'Enter', keyCode: 13 });
    expect(await done).toBe(false);
  });

  const [main, worker, , failed] = SESSION.jobs;
  test.each([
    [[main, worker, failed], 'This cancels the main job 1 on node17 and one worker job;'],
    [[{ ...main, node: '' }], 'This cancels the main job 1;'],
    [[worker, { ...worker, id: '9' }], 'This cancels 2 worker jobs;'],
    [[failed], 'Nothing of it is left in the queue;'],
    [[], 'Nothing of it is left in the queue;']
  ])('counts what is not over', (jobs, words) => {
    expect(stopWords({ ...SESSION, jobs })).toBe(`${words} notebooks that run here end.`);
  });
});
