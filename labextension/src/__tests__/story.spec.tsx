import { MainAreaWidget } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';
import { fireEvent, waitFor } from '@testing-library/dom';
import { act } from '@testing-library/react';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { SessionModel } from '../model';
import { logTab, storyTab } from '../story';
import { ILog, IStory } from '../tokens';
import { moment } from '../words';
import { anAnswer, FakeServer } from './server';

const JOB = anAnswer().session!.jobs[3];
const AT = 1700000009;
const HTML = '<img src=x onerror="boom()"><b>bold</b>';

let server: FakeServer;
let model: SessionModel;
let tab: MainAreaWidget;

beforeEach(() => {
  server = new FakeServer();
  model = new SessionModel({ settings: server.settings });
});

afterEach(() => {
  vi.useRealTimers();
  tab.dispose();
  model.dispose();
});

const text = (): string => tab.content.node.textContent;
const find = (selector: string): HTMLElement => tab.content.node.querySelector<HTMLElement>(selector)!;
const log = (): string => find('.hpclab-Log').textContent;
const paths = (): string[] => server.asked.map(({ path }) => path);

function refresh(): void {
  fireEvent.click(find('[aria-label=Refresh]'));
}

describe('a story', () => {
  const aStory = (more: Partial<IStory> = {}): IStory => ({
    job: JOB,
    events: [
      { time: AT, what: 'submitted', sentence: 'It was submitted.' },
      { time: AT + 60, what: 'killed', sentence: 'It was killed by signal 9.' }
    ],
    log_tail: 'Traceback\nMemoryError',
    ...more
  });

  async function open(words: string): Promise<void> {
    tab = storyTab(model, '4');
    Widget.attach(tab, document.body);
    await waitFor(() => expect(text()).toContain(words));
  }

  test('tells what happened, when, and the end of the log', async () => {
    server.say('GET jobs/4/why', aStory());
    await open('Traceback');
    expect([...tab.content.node.querySelectorAll('li')].map(({ textContent }) => textContent)).toEqual([
      `${moment(AT)}:29It was submitted.`,
      `${moment(AT + 60)}:29It was killed by signal 9.`
    ]);
    expect(find('time').getAttribute('datetime')).toBe('2023-11-14T22:13:29.000Z');
    expect(find('.hpclab-Story-reason').textContent).toBe('killed by signal 9');
    expect(find('.hpclab-Tab-state').textContent).toBe('failed');
    expect(log()).toBe('Traceback\nMemoryError');
  });

  test('is a tab that says whose it is and can be closed', async () => {
    server.say('GET jobs/4/why', aStory());
    await open('Traceback');
    const { label, caption, closable } = tab.title;
    expect([label, caption, closable]).toEqual(['why 4', 'Why: the story of job 4', true]);
  });

  test('shows all words as they were said, never as HTML', async () => {
    server.say(
      'GET jobs/4/why',
      aStory({
        job: { ...JOB, reason: HTML },
        events: [{ time: AT, what: HTML, sentence: HTML }],
        log_tail: HTML
      })
    );
    await open(HTML);
    expect(find('img, b')).toBeNull();
    expect(text().split(HTML)).toHaveLength(4);
  });

  test('says where there is nothing', async () => {
    server.say('GET jobs/4/why', aStory({ job: { ...JOB, reason: '' }, events: [], log_tail: '' }));
    await open('It has told nothing yet.');
    expect(text()).not.toContain('log');
    expect(find('.hpclab-Story-reason')).toBeNull();
  });

  test('says that it asks, and asks once', async () => {
    server.say('GET jobs/4/why', aStory());
    const release = server.hold('GET jobs/4/why');
    await open('Asking…');
    release();
    await waitFor(() => expect(text()).not.toContain('Asking…'));
    expect(paths()).toEqual(['jobs/4/why']);
  });

  test('keeps what it knows when the next question brings nothing, and says why', async () => {
    server.say('GET jobs/4/why', aStory());
    await open('Traceback');
    server.say('GET jobs/4/why', null);
    refresh();
    await waitFor(() => expect(find('[role=status]')?.textContent).toContain('no answer from the server'));
    expect(log()).toBe('Traceback\nMemoryError');
    server.say('GET jobs/4/why', aStory({ log_tail: 'more' }));
    await waitFor(() => expect(find('[aria-label=Refresh]').getAttribute('aria-disabled')).not.toBe('true'));
    refresh();
    await waitFor(() => expect(log()).toBe('more'));
    expect(find('[role=status]')).toBeNull();
  });

  test('says why it cannot be told', async () => {
    server.say('GET jobs/4/why', { error: 'NoJob', message: `no job ${HTML} here` }, 404);
    await open(`no job ${HTML} here`);
    expect(text()).not.toContain('Asking…');
    expect(find('img, b')).toBeNull();
  });
});

describe('a log', () => {
  const aLog = (words: string, is_cut = false): ILog => ({ text: words, is_cut });

  async function open(words: string): Promise<void> {
    tab = logTab(model, '4');
    Widget.attach(tab, document.body);
    await waitFor(() => expect(text()).toContain(words));
  }

  const follow = (): void => void fireEvent.click(find('input'));

  test('is shown as it is, line by line', async () => {
    server.say('GET jobs/4/log', aLog(`one\n  two\n${HTML}`));
    await open('two');
    expect(log()).toBe(`one\n  two\n${HTML}`);
    expect(find('img, b')).toBeNull();
    expect(paths()).toEqual(['jobs/4/log?lines=1000']);
    expect([tab.title.label, tab.title.caption]).toEqual(['log 4', 'Log of job 4']);
  });

  test('can be read by keyboard', async () => {
    server.say('GET jobs/4/log', aLog('one'));
    await open('one');
    expect(find('[aria-label=Log]').tabIndex).toBe(0);
  });

  test.each([
    [true, 'The log is longer: this is its end.'],
    [false, '']
  ])('says whether there is more of it: %s', async (isCut, words) => {
    server.say('GET jobs/4/log', aLog('one', isCut));
    await open('one');
    expect(find('.hpclab-mod-log .hpclab-Quiet')?.textContent ?? '').toBe(words);
  });

  test('says where it is empty', async () => {
    server.say('GET jobs/4/log', aLog(''));
    await open('It is empty.');
    expect(find('.hpclab-Log')).toBeNull();
  });

  test('has as many lines as are chosen', async () => {
    server.say('GET jobs/4/log', aLog('short'));
    await open('short');
    server.say('GET jobs/4/log', aLog('long'));
    fireEvent.change(find('select'), { target: { value: '10000' } });
    await waitFor(() => expect(log()).toBe('long'));
    expect(paths()).toEqual(['jobs/4/log?lines=1000', 'jobs/4/log?lines=10000']);
  });

  test('shows the answer to the last question, also when an earlier one comes later', async () => {
    const questions = vi.spyOn(model, 'log');
    server.say('GET jobs/4/log', aLog('of a thousand'));
    const release = server.hold('GET jobs/4/log');
    await open('Asking…');
    server.say('GET jobs/4/log', aLog('of a hundred'));
    fireEvent.change(find('select'), { target: { value: '100' } });
    await waitFor(() => expect(log()).toBe('of a hundred'));
    await act(async () => {
      release();
      await questions.mock.results[0].value;
    });
    expect(log()).toBe('of a hundred');
  });

  test('opens at its end, and stays there as long as one follows', async () => {
    server.say('GET jobs/4/log', aLog('one'));
    const release = server.hold('GET jobs/4/log');
    await open('Asking…');
    const tops: number[] = [];
    Object.defineProperties(HTMLElement.prototype, {
      scrollHeight: { get: () => 700, configurable: true },
      scrollTop: { set: (top: number) => void tops.push(top), get: () => 0, configurable: true }
    });
    try {
      release();
      await waitFor(() => expect(text()).toContain('one'));
      expect(tops).toEqual([700]);
      server.say('GET jobs/4/log', aLog('two'));
      refresh();
      await waitFor(() => expect(log()).toBe('two'));
      expect(tops).toEqual([700]); // one reads something above
      server.say('GET jobs/4/log', aLog('three'));
      follow();
      await waitFor(() => expect(log()).toBe('three'));
      expect(tops.length).toBeGreaterThan(1);
    } finally {
      Reflect.deleteProperty(HTMLElement.prototype, 'scrollHeight');
      Reflect.deleteProperty(HTMLElement.prototype, 'scrollTop');
    }
  });

  describe('that is followed', () => {
    beforeEach(async () => {
      server.say('GET jobs/4/log', aLog('one'));
      await open('one');
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    });

    /** So many questions after the first. */
    const questions = (): number => paths().length - 1;

    async function untilAsked(count: number): Promise<void> {
      await vi.waitFor(() => expect(questions()).toBe(count));
    }

    test('is asked for at once and then every two seconds', async () => {
      follow();
      await untilAsked(1);
      server.say('GET jobs/4/log', aLog('two'));
      await vi.advanceTimersByTimeAsync(2000);
      await untilAsked(2);
      await vi.waitFor(() => expect(log()).toBe('two'));
    });

    test('is not asked for while the answer to the last question is on its way', async () => {
      const release = server.hold('GET jobs/4/log');
      follow();
      await untilAsked(1);
      await vi.advanceTimersByTimeAsync(20_000);
      expect(questions()).toBe(1);
      release();
      await vi.waitFor(async () => {
        await vi.advanceTimersByTimeAsync(2000);
        expect(questions()).toBe(2);
      });
    });

    test('is not asked for while another tab is in front', async () => {
      follow();
      await untilAsked(1);
      tab.content.hide();
      await vi.advanceTimersByTimeAsync(20_000);
      expect(questions()).toBe(1);
      tab.content.show();
      await vi.advanceTimersByTimeAsync(2000);
      await untilAsked(2);
    });

    test.each([
      ['one does not follow any more', follow],
      ['the tab is closed', () => tab.dispose()]
    ])('is not asked for when %s', async (_what, end) => {
      follow();
      await untilAsked(1);
      end();
      await vi.advanceTimersByTimeAsync(20_000);
      expect(questions()).toBe(1);
    });
  });
});
