// Before the first paint: the theme that was chosen, if one was. The system's counts otherwise.
(function () {
  'use strict';
  try {
    const chosen = localStorage.getItem('wattgate-theme');
    if (chosen === 'light' || chosen === 'dark') {
      document.documentElement.dataset.theme = chosen;
    }
  } catch {
    // Storage is off: the system's theme it is.
  }
})();
