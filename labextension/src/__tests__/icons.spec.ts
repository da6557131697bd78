import { expect, test } from 'vitest';

import { sessionIcon } from '../icons';

test('the icon is drawn, in the colour of the theme', () => {
  const svg = sessionIcon.element().querySelector('svg')!;
  const shapes = [...svg.querySelectorAll('rect, path')];
  expect(shapes.length).toBeGreaterThan(3);
  for (const shape of shapes) {
    // JupyterLab's themes fill what has this class
    expect(shape.closest('.jp-icon3')).not.toBeNull();
    expect(shape.hasAttribute('fill')).toBe(false);
  }
});

test('it can be found by its name', () => {
  expect(sessionIcon.name).toBe('hpclab:session');
});
