// The words of the page in its two languages, and how dates and numbers are written in them.

const WORDS = {
  en: {
    signIn: 'Sign in', signOut: 'Sign out', email: 'E-mail', password: 'Password', conversations: 'Conversations', search: 'Search',
    show: 'Show', active: 'Open', archived: 'Archived', blocked: 'Blocked', all: 'All', loadMore: 'Load more', loadOlder: 'Load older messages',
    none: 'No conversations yet. They appear here when a customer writes.', noMatch: 'Nothing matches.', chooseOne: 'Choose a conversation.', back: 'Back to the list',
    messages: 'Messages', write: 'Write a message', send: 'Send', live: 'Live', reconnecting: 'Reconnecting…', today: 'Today', yesterday: 'Yesterday', unread: 'unread',
    windowClosed: '24-hour window closed: only templates can be sent until the customer writes again.', windowUntil: 'Free-form messages until',
    lineStopped: 'This line is stopped; messages wait until it is put right.',
    queued: 'Queued', sending: 'Sending', sent: 'Sent', delivered: 'Delivered', read: 'Read', failed: 'Failed', unknown: 'Outcome unknown', cancelled: 'Cancelled',
    again: 'Try again', edited: 'edited', revoked: 'This message was deleted.', unsupported: 'A message of a kind that cannot be shown here.', order: 'Order', template: 'Template',
    image: 'Image', audio: 'Audio', voice: 'Voice message', video: 'Video', document: 'Document', sticker: 'Sticker', location: 'Location', contacts: 'Contact',
    interactive: 'Choice', button: 'Choice', system: 'Notice', reaction: 'Reaction', text: 'Message', earlier: 'An earlier message', download: 'Download', fetching: 'Fetching the file…',
    mediaLost: 'The file could not be fetched.', offline: 'The server cannot be reached.', newFrom: 'New message from', phone: 'Simulated phone', phoneShort: 'Phone',
    phoneAbout: 'Be the customer: what you send here goes through the simulated provider and its webhooks.', line: 'Business line', customer: 'Customer',
    customerSees: 'What the customer sees', writeAsCustomer: 'Write as the customer', sendImage: 'Image', sendVoice: 'Voice note', sendLocation: 'Location', sendReaction: 'React 👍', markRead: 'Mark read',
    newCustomer: 'New customer', name: 'Name', number: 'Number, with +', add: 'Add', breakThings: 'Break things', breakAbout: 'Each applies to everything until switched off.',
    noBusinessMessage: 'The business has not written here yet.', typing: 'typing…', deleted: 'Deleted',
    delay_webhook: 'Delay webhooks by 3 s', drop_webhook: 'Lose every second webhook or so', duplicate_webhook: 'Deliver webhooks twice', reorder_webhook: 'Reorder webhooks',
    linkPhone: 'Link a phone', qrCode: 'QR code', showQr: 'Show the QR code', scanSimulated: 'Scan with the simulated phone', typeSimulated: 'Type it in on the simulated phone', linkByCode: 'Or by a code, on the phone with this number',
    getCode: 'Get code', unlink: 'Log out', close: 'Close', linkScan: 'On the phone: WhatsApp, Linked devices, Link a device, then scan this.',
    linkType: 'On the phone: WhatsApp, Linked devices, Link with phone number, then type this.', linkPasskey: 'WhatsApp asks for a passkey: docs/linked-phones.md says what to do.',
    'session.disconnected': 'Not connected.', 'session.connecting': 'Connecting…', 'session.qr_pending': 'Waiting for the phone.', 'session.connected': 'Connected:', 'session.error': 'Stopped.',
    delay: 'Slow provider, 3 s', rate_limited: 'Too many requests (429)', server_error: 'Provider down (500)', expired_token: 'Expired token (401), stops the line',
  },
  ar: {
    signIn: 'تسجيل الدخول', signOut: 'خروج', email: 'البريد الإلكتروني', password: 'كلمة المرور', conversations: 'المحادثات', search: 'بحث',
    show: 'عرض', active: 'المفتوحة', archived: 'المؤرشفة', blocked: 'المحظورة', all: 'الكل', loadMore: 'عرض المزيد', loadOlder: 'عرض رسائل أقدم',
    none: 'لا محادثات بعد. تظهر هنا عندما يكتب أحد العملاء.', noMatch: 'لا نتائج مطابقة.', chooseOne: 'اختر محادثة.', back: 'العودة إلى القائمة',
    messages: 'الرسائل', write: 'اكتب رسالة', send: 'إرسال', live: 'مباشر', reconnecting: 'جارٍ إعادة الاتصال…', today: 'اليوم', yesterday: 'أمس', unread: 'غير مقروءة',
    windowClosed: 'انتهت مهلة 24 ساعة: لا تُرسل إلا القوالب حتى يكتب العميل من جديد.', windowUntil: 'الرسائل الحرة متاحة حتى',
    lineStopped: 'هذا الخط متوقف؛ تنتظر الرسائل حتى يُصلَح.',
    queued: 'في الانتظار', sending: 'جارٍ الإرسال', sent: 'أُرسلت', delivered: 'وصلت', read: 'قُرئت', failed: 'فشل الإرسال', unknown: 'النتيجة غير معروفة', cancelled: 'أُلغيت',
    again: 'إعادة المحاولة', edited: 'معدّلة', revoked: 'حُذفت هذه الرسالة.', unsupported: 'رسالة من نوع لا يمكن عرضه هنا.', order: 'طلب', template: 'قالب',
    image: 'صورة', audio: 'صوت', voice: 'رسالة صوتية', video: 'فيديو', document: 'مستند', sticker: 'ملصق', location: 'موقع', contacts: 'جهة اتصال',
    interactive: 'اختيار', button: 'اختيار', system: 'تنبيه', reaction: 'تفاعل', text: 'رسالة', earlier: 'رسالة سابقة', download: 'تنزيل', fetching: 'جارٍ جلب الملف…',
    mediaLost: 'تعذّر جلب الملف.', offline: 'تعذّر الوصول إلى الخادم.', newFrom: 'رسالة جديدة من', phone: 'هاتف المحاكاة', phoneShort: 'الهاتف',
    phoneAbout: 'كن أنت العميل: ما ترسله هنا يمر عبر المزوّد المُحاكى وإشعاراته.', line: 'خط الشركة', customer: 'العميل',
    customerSees: 'ما يراه العميل', writeAsCustomer: 'اكتب كعميل', sendImage: 'صورة', sendVoice: 'رسالة صوتية', sendLocation: 'موقع', sendReaction: 'تفاعل 👍', markRead: 'قراءة الرسائل',
    newCustomer: 'عميل جديد', name: 'الاسم', number: 'الرقم مع +', add: 'إضافة', breakThings: 'إحداث أعطال', breakAbout: 'يسري كل عطل على كل شيء حتى تطفئه.',
    noBusinessMessage: 'لم تكتب الشركة هنا بعد.', typing: 'يكتب الآن…', deleted: 'محذوفة',
    delay_webhook: 'تأخير الإشعارات 3 ثوانٍ', drop_webhook: 'ضياع نصف الإشعارات تقريباً', duplicate_webhook: 'تكرار الإشعارات', reorder_webhook: 'تبديل ترتيب الإشعارات',
    linkPhone: 'ربط هاتف', qrCode: 'رمز QR', showQr: 'عرض رمز QR', scanSimulated: 'امسح بهاتف المحاكاة', typeSimulated: 'اكتبه على هاتف المحاكاة', linkByCode: 'أو برمز يُكتب على الهاتف صاحب هذا الرقم',
    getCode: 'طلب الرمز', unlink: 'إلغاء الربط', close: 'إغلاق', linkScan: 'على الهاتف: واتساب، الأجهزة المرتبطة، ربط جهاز، ثم امسح هذا الرمز.',
    linkType: 'على الهاتف: واتساب، الأجهزة المرتبطة، الربط برقم الهاتف، ثم اكتب هذا الرمز.', linkPasskey: 'يطلب واتساب مفتاح مرور: الخطوات في docs/linked-phones.md.',
    'session.disconnected': 'غير متصل.', 'session.connecting': 'جارٍ الاتصال…', 'session.qr_pending': 'في انتظار الهاتف.', 'session.connected': 'متصل:', 'session.error': 'متوقف.',
    delay: 'مزوّد بطيء، 3 ثوانٍ', rate_limited: 'طلبات كثيرة (429)', server_error: 'المزوّد معطّل (500)', expired_token: 'رمز منتهي الصلاحية (401)، يوقف الخط',
    'error.window_closed': 'انتهت مهلة 24 ساعة: لا تُرسل إلا القوالب حتى يكتب العميل من جديد.', 'error.opted_out': 'أوقف هذا العميل استقبال الرسائل.',
    'error.invalid_credentials': 'البريد أو كلمة المرور غير صحيحة.', 'error.offline': 'تعذّر الوصول إلى الخادم.',
  },
};

/** The language shown: `en` or `ar`; as chosen before, else the browser's. */
export let lang = localStorage.getItem('wasel.lang') ?? (navigator.language.startsWith('ar') ? 'ar' : 'en');
export function switchLanguage() {
  lang = lang === 'ar' ? 'en' : 'ar';
  localStorage.setItem('wasel.lang', lang);
}

export const t = (key) => WORDS[lang][key] ?? WORDS.en[key] ?? key;
/** An error in the reader's words where there are some, else as the server put it. */
export const said = (error) => WORDS[lang][`error.${error.code}`] ?? error.message;

const locale = () => navigator.languages.find((tag) => tag.startsWith(lang)) ?? (lang === 'ar' ? 'ar-EG' : 'en');
export const inNumber = (number) => new Intl.NumberFormat(locale()).format(number);
export const inWords = (date, options) => new Intl.DateTimeFormat(locale(), options).format(new Date(date));
export const clock = (date) => inWords(date, { hour: 'numeric', minute: '2-digit' });
export const dayOf = (date) => new Date(date).toDateString();
export function dayName(date) {
  const ago = Math.round((new Date(dayOf(Date.now())) - new Date(dayOf(date))) / 86_400_000);
  if (ago === 0 || ago === 1) return t(ago ? 'yesterday' : 'today');
  return inWords(date, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
}
