import { readFileSync } from 'node:fs';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [
    {
      // JupyterLab's icons are text to its own build
      name: 'svg-as-text',
      enforce: 'pre',
      load: id => (id.endsWith('.svg') ? `export default ${JSON.stringify(readFileSync(id, 'utf8'))};` : null)
    }
  ],
  test: {
    environment: 'jsdom',
    include: ['src/__tests__/*.spec.{ts,tsx}'],
    setupFiles: ['src/__tests__/setup.ts'],
    // these import styles and directories, which Node does not by itself
    server: { deps: { inline: [/@jupyterlab\//, /@jupyter\//, /@lumino\//, /@rjsf\//] } },
    pool: 'threads',
    maxWorkers: '100%',
    sequence: { shuffle: true }
  }
});
