// Runs before the first paint. Sets the chosen theme, if there is one; otherwise the system's theme applies.
(function () {
  'use strict';
  try {
    const chosen = localStorage.getItem('wattgate-theme');
    if (chosen === 'light' || chosen === 'dark') {
      document.documentElement.dataset.theme = chosen;
    }
  } catch {
    // Storage is turned off: use the system's theme.
  }
})();
