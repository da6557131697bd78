import { act, cleanup, fireEvent, render, screen, within } from '@testing-library/react';
import * as React from 'react';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { CommandIDs, IJob } from '../tokens';
import { moment } from '../words';
import { inSight, isOver, offsetsOf, ROW_PX, WorkerList } from '../workers';
import { anAnswer } from './server';

const [MAIN, JOINED, QUEUED, FAILED] = anAnswer().session!.jobs;

/** As many as are wanted, the oldest first, the main job among them. */
const many = (count: number): IJob[] => [
  MAIN,
  ...Array.from({ length: count - 1 }, (_, index) => ({ ...JOINED, id: String(1001 + index) }))
];

/** Elements whose height is watched, and how to change it. */
let resize: (element: HTMLElement, height: number) => void;
let run: ReturnType<typeof vi.fn<(command: string, jobId: string) => Promise<unknown>>>;

beforeEach(() => {
  const observers = new Map<Element, () => void>();
  vi.stubGlobal(
    'ResizeObserver',
    class {
      constructor(private readonly tell: () => void) {}
      observe(element: Element): void {
        this._element = element;
        observers.set(element, this.tell);
      }
      disconnect(): void {
        observers.delete(this._element!);
      }
      private _element: Element | null = null;
    }
  );
  resize = (element, height) => {
    Object.defineProperty(element, 'offsetHeight', { value: height, configurable: true });
    act(observers.get(element)!);
  };
  run = vi.fn(() => Promise.resolve());
});

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

function show(jobs: IJob[]): (jobs: IJob[]) => void {
  const { rerender } = render(<WorkerList jobs={jobs} run={run} />);
  return now => {
    rerender(<WorkerList jobs={now} run={run} />);
  };
}

const rows = (): HTMLElement[] => [...document.querySelectorAll('li')];
const heads = (): HTMLElement[] => rows().map(row => row.querySelector('button')!);
const names = (): string[] =>
  rows().map(row => row.querySelector('.hpclab-Row-name')?.textContent ?? row.textContent ?? '');
const row = (name: string): HTMLElement => rows().find(one => one.textContent.includes(name))!;
const head = (name: string): HTMLElement => row(name).querySelector('button')!;
const scroller = (): HTMLElement => document.querySelector<HTMLElement>('.hpclab-List')!;

function scrollTo(top: number): void {
  scroller().scrollTop = top;
  fireEvent.scroll(scroller());
}

function press(key: string, more: object = {}): boolean {
  return fireEvent.keyDown(document.activeElement!, { key, ...more });
}

function focus(element: HTMLElement): void {
  act(() => {
    element.focus();
  });
}

describe('the order', () => {
  test('is the main job, then the newest, and those that are over below a line of their own', () => {
    show([JOINED, FAILED, MAIN, { ...QUEUED, id: '7' }]);
    expect(names()).toEqual(['main job 1', 'job 7', 'job 2', 'ended (1), 1 of them failed']);
  });

  test('is told to a screen reader, with how many there are', () => {
    show([MAIN, JOINED]);
    expect(screen.getByRole('list').getAttribute('aria-label')).toBe('Jobs');
    expect(
      screen.getAllByRole('listitem').map(one => [one.getAttribute('aria-posinset'), one.getAttribute('aria-setsize')])
    ).toEqual([
      ['1', '2'],
      ['2', '2']
    ]);
  });

  test('keeps what is over folded until one looks', () => {
    show([MAIN, FAILED, { ...FAILED, id: '5', state: 'cancelled' }]);
    const fold = (): HTMLElement => head('ended (2), 1 of them failed');
    expect(fold().getAttribute('aria-expanded')).toBe('false');
    fireEvent.click(fold());
    expect(fold().getAttribute('aria-expanded')).toBe('true');
    expect(names()).toEqual(['main job 1', 'ended (2), 1 of them failed', 'job 5', 'job 4']);
    fireEvent.click(fold());
    expect(names()).toHaveLength(2);
  });

  test('shows what is over where nothing else is left, and folds it when told to', () => {
    show([FAILED]);
    expect(names()).toEqual(['ended (1), 1 of them failed', 'job 4']);
    fireEvent.click(head('ended'));
    expect(names()).toEqual(['ended (1), 1 of them failed']);
  });
});

test('no jobs are told in words', () => {
  show([]);
  expect(screen.getByText('No jobs yet.')).toBeTruthy();
  expect(screen.queryByRole('list')).toBeNull();
});

test.each([
  ['done', true],
  ['failed', true],
  ['cancelled', true],
  ['gone', true],
  ['pending', false],
  ['held', false],
  ['running', false],
  ['completing', false],
  ['unknown', false]
] as const)('that a job which is %s is over is %s', (state, over) => {
  expect(isOver({ ...JOINED, state })).toBe(over);
});

describe('a row', () => {
  test('says where a job is, how large, how long it has, and how much of it is in use', () => {
    show([JOINED]);
    const words = row('job 2').textContent;
    for (const word of ['joined', '59 min left', 'node18 · 2 cores · 4 GiB', 'CPU98 %', 'Memory3 GiB']) {
      expect(words).toContain(word);
    }
    const bars = [...row('job 2').querySelectorAll<HTMLElement>('.hpclab-Meter-bar')].map(bar => bar.style.width);
    expect(bars).toEqual(['97.5%', '75%']);
  });

  test('reads all of it in one sentence', () => {
    show([JOINED]);
    expect(screen.getByRole('button', { expanded: false }).getAttribute('aria-label')).toBe(
      'job 2, joined, 59 min left, node18 · 2 cores · 4 GiB, 98 % of 2 cores, 3 GiB of 4 GiB'
    );
  });

  test('counts what is in use by the workers that have joined', () => {
    show([{ ...JOINED, workers: 4, joined: 2, cpu_percent: 200, memory_used_bytes: 2 * 2 ** 30 }]);
    expect(head('job 2').getAttribute('aria-label')).toContain('50 % of 4 cores, 2 GiB of 8 GiB');
    expect(head('job 2').getAttribute('aria-label')).toContain('2 of 4 joined');
  });

  test('never draws more than all of it', () => {
    show([{ ...JOINED, cpu_percent: 1000 }]);
    expect(row('job 2').querySelector<HTMLElement>('.hpclab-Meter-bar')!.style.width).toBe('100%');
    expect(row('job 2').textContent).toContain('CPU500 %');
  });

  test('shows no use where none is known', () => {
    show([MAIN]);
    expect(row('main job').querySelector('.hpclab-Usage')).toBeNull();
    expect(head('main job').getAttribute('aria-label')).not.toContain('%');
  });

  test('shows what there is where only one of them is known', () => {
    show([{ ...JOINED, cpu_percent: null }]);
    expect(row('job 2').textContent).not.toContain('CPU');
    expect(row('job 2').textContent).toContain('Memory3 GiB');
  });

  test('says why a job waits, and when it is expected to start', () => {
    show([QUEUED]);
    expect(row('job 3').textContent).toContain('waits: needs 2, 1 of 8 are free');
    expect(row('job 3').textContent).toContain(`starts about ${moment(QUEUED.expected_start!)} · 2 cores`);
    expect(row('job 3').dataset.state).toBe('pending');
  });

  test.each([
    [{ workers: 2, cores: 1, gpus: 1 }, '2 × 1 core · 2 × 4 GiB · 2 × 1 GPU'],
    [{ workers: 1, cores: 8, gpus: 4 }, '8 cores · 4 GiB · 4 GPUs']
  ])('counts cores, memory and GPUs: %j', (size, words) => {
    show([{ ...JOINED, ...size }]);
    expect(row('job 2').querySelector('.hpclab-Row-place')!.textContent).toBe(`node18 · ${words}`);
  });

  test('shows names and reasons as they were said, never as HTML', () => {
    const html = '<img src=x onerror="boom()"><b>bold</b>';
    show([{ ...QUEUED, node: html, reason: html }]);
    fireEvent.click(head('job 3'));
    expect(document.querySelector('img, b')).toBeNull();
    expect(row('job 3').textContent.split(html)).toHaveLength(5); // in the row and in its details
  });

  test('has the whole of long words where the pointer asks for it', () => {
    const node = 'compute-node-with-a-long-name-0017.cluster.example.org';
    show([{ ...QUEUED, node, reason: 'waits '.repeat(50) }]);
    expect(row('job 3').querySelector('.hpclab-Row-place')!.getAttribute('title')).toContain(node);
    expect(row('job 3').querySelector('.hpclab-Row-reason')!.getAttribute('title')).toBe('waits '.repeat(50));
  });
});

describe('the details', () => {
  const facts = (): Record<string, string> =>
    Object.fromEntries(
      [...document.querySelectorAll('.hpclab-Detail dt')].map(dt => [
        dt.textContent,
        dt.nextElementSibling!.textContent
      ])
    );

  test('open at a click, say what has no room in a row, and close at the next', () => {
    show([JOINED]);
    fireEvent.click(head('job 2'));
    expect(head('job 2').getAttribute('aria-expanded')).toBe('true');
    expect(document.getElementById(head('job 2').getAttribute('aria-controls')!)).toBe(
      document.querySelector('.hpclab-Detail')
    );
    expect(facts()).toEqual({
      Submitted: moment(JOINED.submit_time!),
      Started: moment(JOINED.start_time!),
      Ends: moment(JOINED.end_time!),
      Walltime: '1 h 00 min',
      Node: 'node18',
      Workers: '1 of 1 joined, 1 at work',
      'In use': '98 % of 2 cores, 3 GiB of 4 GiB'
    });
    fireEvent.click(head('job 2'));
    expect(document.querySelector('.hpclab-Detail')).toBeNull();
    expect(head('job 2').hasAttribute('aria-controls')).toBe(false);
  });

  test('of what is over say how it ended', () => {
    show([FAILED]);
    fireEvent.click(head('job 4'));
    expect(facts()).toMatchObject({ Ended: moment(FAILED.end_time!), 'Exit status': '137' });
    expect(facts().Workers).toBeUndefined();
  });

  test('are those of one job at a time', () => {
    show([MAIN, JOINED]);
    fireEvent.click(head('main job'));
    fireEvent.click(head('job 2'));
    expect(document.querySelectorAll('.hpclab-Detail')).toHaveLength(1);
    expect(row('job 2').querySelector('.hpclab-Detail')).not.toBeNull();
  });

  test('push the rows below down by as much as they are high', () => {
    show([MAIN, JOINED]);
    fireEvent.click(head('main job'));
    resize(document.querySelector('.hpclab-Detail')!, 150);
    expect(row('job 2').style.top).toBe(`${ROW_PX + 150}px`);
    expect(row('main job').style.height).toBe(`${ROW_PX + 150}px`);
    expect(screen.getByRole('list').style.height).toBe(`${2 * ROW_PX + 150}px`);
    fireEvent.click(head('main job'));
    expect(row('job 2').style.top).toBe(`${ROW_PX}px`);
  });
});

describe('the buttons of a job', () => {
  test.each([
    ['Why: the story of job 2', CommandIDs.why],
    ['Log of job 2', CommandIDs.log],
    ['Retire job 2', CommandIDs.retireWorker]
  ])('%s', (label, command) => {
    show([MAIN, JOINED]);
    fireEvent.click(screen.getByRole('button', { name: label }));
    expect(run.mock.calls).toEqual([[command, '2']]);
    expect(document.querySelector('.hpclab-Detail')).toBeNull();
  });

  test('have words in its details', () => {
    show([JOINED]);
    fireEvent.click(head('job 2'));
    expect(
      within(row('job 2'))
        .getAllByRole('button')
        .map(({ textContent }) => textContent)
        .slice(1)
    ).toEqual(['Why', 'Log', 'Retire']);
  });

  test('retire neither the main job nor one that is over', () => {
    show([MAIN, FAILED]);
    fireEvent.click(head('ended'));
    expect(screen.queryByRole('button', { name: /^Retire/ })).toBeNull();
    expect(screen.getAllByRole('button', { name: /^Log of/ })).toHaveLength(2);
  });

  test('do it once at a double click, and no more while it is under way', () => {
    run.mockReturnValue(new Promise(() => undefined));
    show([MAIN, JOINED]);
    const retire = screen.getByRole('button', { name: 'Retire job 2' });
    fireEvent.click(retire);
    fireEvent.click(retire);
    fireEvent.doubleClick(retire);
    expect(run).toHaveBeenCalledTimes(1);
    expect(retire.getAttribute('aria-disabled')).toBe('true');
  });
});

describe('five hundred jobs', () => {
  test.each([
    ['the top', 0, 'main job 1'],
    ['the middle', 250 * ROW_PX, 'job 1250'],
    ['the end', 500 * ROW_PX, 'job 1001']
  ])('have only the rows in sight in the page, at %s', (_where, top, name) => {
    show(many(500));
    scrollTo(top);
    expect(rows().length).toBeLessThan(40);
    expect(names()).toContain(name);
    expect(screen.getByRole('list').style.height).toBe(`${500 * ROW_PX}px`);
    expect(row(name).getAttribute('aria-setsize')).toBe('500');
  });

  test('leave no gap in what is in sight, however one scrolls', () => {
    show(many(500));
    resize(scroller(), 700);
    for (let top = 0; top < 30 * ROW_PX; top += 97) {
      scrollTo(top);
      const places = rows().map(one => parseInt(one.style.top));
      const inView = places.filter(place => place + ROW_PX > top && place < top + 700);
      expect(inView[0]).toBeLessThanOrEqual(top);
      expect(inView.at(-1)! + ROW_PX).toBeGreaterThanOrEqual(top + 700);
      expect(inView).toEqual(inView.map((_, index) => inView[0] + index * ROW_PX));
    }
  });

  test('draw as many rows as there is room for', () => {
    show(many(500));
    resize(scroller(), 20 * ROW_PX);
    const before = rows().length;
    resize(scroller(), 5 * ROW_PX);
    expect([before, rows().length]).toEqual([24, 9]);
  });
});

describe('the keyboard', () => {
  const inTabOrder = (): string[] =>
    screen
      .getAllByRole('button')
      .filter(({ tabIndex }) => tabIndex === 0)
      .map(button => button.getAttribute('aria-label')!.split(',')[0]);
  const focused = (): string => document.activeElement!.getAttribute('aria-label')!.split(',')[0];

  test('reaches one row by Tab, with its buttons', () => {
    show([MAIN, JOINED, QUEUED]);
    expect(inTabOrder()).toEqual(['main job 1', 'Why: the story of main job 1', 'Log of main job 1']);
  });

  test('goes from row to row by the arrows, and Tab then goes on from there', () => {
    show([MAIN, JOINED, QUEUED]);
    focus(heads()[0]);
    expect(press('ArrowDown')).toBe(false); // the page must not scroll by it
    expect(focused()).toBe('job 3');
    expect(inTabOrder()).toEqual(['job 3', 'Why: the story of job 3', 'Log of job 3', 'Retire job 3']);
    press('ArrowUp');
    press('ArrowUp');
    expect(focused()).toBe('main job 1');
  });

  test('goes to the ends and by pages, and brings what it reaches in sight', () => {
    show(many(500));
    resize(scroller(), 10 * ROW_PX);
    focus(heads()[0]);
    press('End');
    expect(focused()).toBe('job 1001');
    expect(scroller().scrollTop).toBe(490 * ROW_PX);
    press('PageUp');
    expect(focused()).toBe('job 1010');
    press('Home');
    expect(focused()).toBe('main job 1');
    expect(scroller().scrollTop).toBe(0);
    press('PageDown');
    expect(document.activeElement!.closest('li')!.dataset.index).toBe('9');
  });

  test('presses the row by Enter and Space, and leaves other keys alone', () => {
    show([MAIN, JOINED]);
    focus(heads()[0]);
    for (const key of ['Enter', ' ', 'Tab', 'a']) {
      expect(press(key)).toBe(true); // then the browser presses a real button, or moves on
    }
    expect(press('ArrowDown', { ctrlKey: true })).toBe(true);
    expect(focused()).toBe('main job 1');
    expect(document.activeElement!.tagName).toBe('BUTTON');
  });

  test('keeps its place when the row is scrolled out of sight', () => {
    show(many(500));
    focus(heads()[2]);
    const name = focused();
    scrollTo(300 * ROW_PX);
    expect(focused()).toBe(name);
    press('ArrowDown');
    expect(document.activeElement!.closest('li')!.dataset.index).toBe('3');
    expect(scroller().scrollTop).toBe(3 * ROW_PX);
  });

  test('keeps its place when a job comes or changes', () => {
    const change = show([MAIN, JOINED]);
    focus(head('job 2'));
    change([MAIN, JOINED, QUEUED]);
    change([MAIN, { ...JOINED, busy: 0, cpu_percent: 3 }, QUEUED]);
    expect(focused()).toBe('job 2');
    expect(inTabOrder()[0]).toBe('job 2');
  });

  test('takes no focus by itself', () => {
    const change = show([MAIN, JOINED]);
    change([MAIN, JOINED, QUEUED]);
    expect(document.activeElement).toBe(document.body);
  });
});

test.each([
  [0, 100, [0, 2]],
  [50, 100, [1, 2]],
  [49, 101, [0, 3]],
  [150, 500, [3, 3]],
  [-500, 0, [0, 0]]
])('from %d until %d are in sight those', (from, to, those) => {
  expect(inSight(offsetsOf([50, 50, 50]), from, to)).toEqual(those);
});

test('each row begins where the one above ends', () => {
  expect(offsetsOf([10, 20, 30])).toEqual([0, 10, 30, 60]);
  expect(offsetsOf([])).toEqual([0]);
});
