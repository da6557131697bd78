/** A button that does its work once, however often it is clicked meanwhile. */
import * as React from 'react';

interface IActionButtonProps extends React.ButtonHTMLAttributes<HTMLButtonElement> {
  /** What it does; told to the user by whoever does it, when it fails. */
  onAct: () => Promise<unknown>;
}

export function ActionButton({ onAct, children, ...rest }: IActionButtonProps): React.JSX.Element {
  const [isBusy, setIsBusy] = React.useState(false);
  // a second click may come before the first one has been drawn
  const isUnderWay = React.useRef(false);
  const act = async (): Promise<void> => {
    if (isUnderWay.current) {
      return;
    }
    isUnderWay.current = true;
    setIsBusy(true);
    try {
      await onAct();
    } catch {
      // whoever did it has said so
    } finally {
      isUnderWay.current = false;
      setIsBusy(false);
    }
  };
  return (
    <button type="button" {...rest} aria-disabled={isBusy || rest.disabled} onClick={() => void act()}>
      {children}
    </button>
  );
}
