import { useEffect, useState } from 'react';

import { useWhatsAppSession } from '@wasel/react';
import type { UseWhatsAppSession } from '@wasel/react';

/** The settings page of S4.8 and S4.15: link a phone by QR or by code, see which one is linked, unlink it. */
export function WhatsAppSettings() {
  const whatsapp = useWhatsAppSession();
  const { status, error, loading, live } = whatsapp;
  return (
    <section className="card" data-testid="whatsapp" data-status={status} data-live={live}>
      <h1>إعدادات واتساب</h1>
      {error && (
        <p role="alert">
          تعذّر تنفيذ الطلب: <bdi>{error.message}</bdi>
        </p>
      )}
      {loading ? <p>جارٍ التحميل…</p> : <Current {...whatsapp} />}
    </section>
  );
}

/** What there is to see and to do now. */
function Current(whatsapp: UseWhatsAppSession) {
  if (whatsapp.status === 'connected') return <Connected {...whatsapp} />;
  if (whatsapp.session?.passkey_request) {
    return <p>يطلب واتساب مفتاح المرور لهذا الحساب. الخطوات في دليل ربط الهواتف.</p>;
  }
  if (whatsapp.qrCode || whatsapp.pairingCode) return <Code {...whatsapp} />;
  if (whatsapp.status === 'connecting' || whatsapp.busy === 'connecting') {
    return (
      <>
        <Badge tone="waiting">جارٍ الاتصال…</Badge>
        <p>لحظات ويظهر الرمز.</p>
      </>
    );
  }
  return <Disconnected {...whatsapp} />;
}

function Badge({ tone, children }: { tone: 'good' | 'waiting' | 'bad' | 'none'; children: string }) {
  return <span className={`badge ${tone}`}>{children}</span>;
}

/** Why a session stands still, for people. */
const REASONS: Record<string, string> = {
  not_linked: 'لم يُمسح الرمز في الوقت المحدد. حاول مرة أخرى.',
  logged_out: 'أُلغي ربط الهاتف. اربطه من جديد.',
  lost: 'انقطع الاتصال بالهاتف.',
  replaced: 'اتصل برنامج آخر بالحالة نفسها.',
  banned: 'أوقف واتساب هذا الحساب مؤقتًا.',
  outdated: 'يلزم تحديث الخادم ليتصل بواتساب.',
  refused: 'رفض واتساب الاتصال.',
  state: 'تعذّرت قراءة الحالة المحفوظة. احذف الجلسة واربط الهاتف من جديد.',
};

function Disconnected({ status, session, busy, connect }: UseWhatsAppSession) {
  const [phone, setPhone] = useState('');
  const reason = session?.stop_reason ?? null;
  return (
    <>
      {status === 'error' ? <Badge tone="bad">خطأ</Badge> : <Badge tone="none">غير متصل</Badge>}
      {reason && (
        <p className="reason" data-reason={reason}>
          {REASONS[reason] ?? session?.connection_error}
        </p>
      )}
      <p>اربط هاتفك لإرسال رسائل واتساب واستقبالها من هنا.</p>
      <button type="button" disabled={busy !== null} onClick={() => void connect()}>
        ربط واتساب
      </button>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void connect({ phoneNumber: phone });
        }}
      >
        <label>
          أو اربط برمز، بدل رمز QR، على هذا الرقم
          <input
            type="tel"
            dir="ltr"
            placeholder="+201001234567"
            value={phone}
            onChange={(event) => setPhone(event.target.value)}
            required
          />
        </label>
        <button type="submit" className="quiet" disabled={busy !== null}>
          الحصول على رمز
        </button>
      </form>
    </>
  );
}

function Code({ qrCode, pairingCode, expiresAt }: UseWhatsAppSession) {
  const seconds = useSecondsUntil(expiresAt);
  return (
    <>
      <Badge tone="waiting">بانتظار الهاتف</Badge>
      {pairingCode ? (
        <>
          <p>على الهاتف: واتساب، الأجهزة المرتبطة، ربط جهاز، الربط برقم الهاتف. ثم اكتب هذا الرمز:</p>
          <code dir="ltr" data-testid="pairing-code">
            {pairingCode}
          </code>
        </>
      ) : (
        <>
          <p>على الهاتف: واتساب، الأجهزة المرتبطة، ربط جهاز. ثم امسح هذا الرمز:</p>
          {qrCode && <img src={qrCode} alt="رمز QR لربط واتساب" width="264" height="264" />}
        </>
      )}
      {seconds !== null && <p className="countdown">ينتهي هذا الرمز بعد {seconds} ثانية.</p>}
    </>
  );
}

function useSecondsUntil(end: Date | null): number | null {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, []);
  return end && Math.max(0, Math.ceil((end.getTime() - now) / 1_000));
}

function Connected({ phoneNumber, displayName, busy, logout }: UseWhatsAppSession) {
  const [isAsked, setAsked] = useState(false);
  return (
    <>
      <Badge tone="good">متصل</Badge>
      <dl>
        <dt>الرقم</dt>
        <dd dir="ltr" data-testid="phone-number">
          {phoneNumber}
        </dd>
        <dt>الاسم</dt>
        <dd data-testid="display-name">{displayName}</dd>
      </dl>
      {isAsked ? (
        <div role="alertdialog" aria-label="تأكيد قطع الاتصال">
          <p>سيتوقف إرسال الرسائل واستقبالها من هذا الهاتف. هل تريد قطع الاتصال؟</p>
          <button type="button" className="danger" disabled={busy !== null} onClick={() => void logout()}>
            نعم، اقطع الاتصال
          </button>
          <button type="button" className="quiet" onClick={() => setAsked(false)}>
            إلغاء
          </button>
        </div>
      ) : (
        <button type="button" className="danger" onClick={() => setAsked(true)}>
          قطع الاتصال
        </button>
      )}
    </>
  );
}
