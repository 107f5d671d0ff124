# ActionMailer, each message over a connection of its own. `options` are its smtp_settings, `rails` the text of a project's
# environment, `sendmail` its sendmail_settings.
require 'json'
require 'action_mailer'

asked = JSON.parse($stdin.read)
given = asked['settings']
settings = { address: given['host'], port: given['port'], ca_file: given['ca'], open_timeout: 20, read_timeout: 20 }
settings.update(user_name: given['user'], password: given['password'], authentication: :plain) if given['user']
settings.update(tls: true) if given['tls'] == 'implicit'
settings.update(asked['options'].transform_keys(&:to_sym)) if asked['options']

class Letter < ActionMailer::Base
  def one(mail)
    if mail['attachment']
      attachments[mail['attachment']['name']] = mail['attachment']['base64'].unpack1('m')
    end
    mail(from: mail['sender'], to: mail['to'], cc: mail['cc'], bcc: mail['bcc'], subject: mail['subject'],
         body: mail['text'], content_type: mail['attachment'] ? nil : 'text/plain; charset=UTF-8')
  end
end

ActionMailer::Base.logger = nil
ActionMailer::Base.smtp_settings = settings.compact
if asked['rails']
  config = Struct.new(:action_mailer).new(ActionMailer::Base)
  config.action_mailer.smtp_settings = nil
  eval(asked['rails'])
elsif asked['sendmail']
  ActionMailer::Base.delivery_method = :sendmail
  ActionMailer::Base.sendmail_settings = asked['sendmail'].transform_keys(&:to_sym)
end
told = asked['mails'].map do |mail|
  Letter.one(mail).deliver_now
  { ok: true }
rescue Net::ProtocolError, OpenSSL::SSL::SSLError, SystemCallError => e
  { ok: false, error: e.message }
end
puts JSON.generate(told)
