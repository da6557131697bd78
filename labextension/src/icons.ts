/**
 * The icon: a node with its workers. Its fill is the theme's.
 */

import { LabIcon } from '@jupyterlab/ui-components';

const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <rect x="8" y="2" width="8" height="7" rx="1.5"/>
    <rect x="1.5" y="16" width="6" height="6" rx="1.2"/>
    <rect x="9" y="16" width="6" height="6" rx="1.2"/>
    <rect x="16.5" y="16" width="6" height="6" rx="1.2"/>
    <path d="M11.2 9h1.6v2.7h6a1.5 1.5 0 0 1 1.5 1.5V16h-1.6v-2.7h-5.9V16h-1.6v-2.7H5.3V16H3.7v-2.8a1.5 1.5 0 0 1 1.5-1.5h6z"/>
  </g>
</svg>`;

export const sessionIcon = new LabIcon({ name: 'hpclab:session', svgstr: SVG });
