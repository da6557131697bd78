/** What JupyterLab's own packages need of a browser and jsdom does not have. */

Object.assign(globalThis, {
  requestIdleCallback: (work: () => void) => setTimeout(work, 0),
  cancelIdleCallback: clearTimeout,
  DragEvent: globalThis.DragEvent ?? class extends MouseEvent {},
  ResizeObserver:
    globalThis.ResizeObserver ??
    class {
      observe(): void {}
      unobserve(): void {}
      disconnect(): void {}
    },
  matchMedia:
    globalThis.matchMedia ??
    ((media: string) =>
      Object.assign(new EventTarget(), { media, matches: false, addListener() {}, removeListener() {} }))
});
